"""``perfmodel specs``: what is shipped, what a file says, whether it can be used."""

from __future__ import annotations

import typer

app = typer.Typer(help="List, show and check specifications.", no_args_is_help=True, rich_markup_mode=None)
