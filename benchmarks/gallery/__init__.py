"""Every model of `pyrovae.models` trained by one command, beside what anybody would try first."""
