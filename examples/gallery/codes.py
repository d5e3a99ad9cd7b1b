"""Print the codes of an authenticator key: `python -m examples.gallery.codes KEY`.

For trying the demo without a phone; a real key belongs on another device.
"""

import time

import click
import pyotp

_STEP_SECONDS = 30


@click.command()
@click.argument("key")
def main(key: str) -> None:
    """Print the code of now and the next one."""
    try:
        totp = pyotp.TOTP(key.replace(" ", ""))
        now = int(time.time())
        codes = [totp.at(now), totp.at(now + _STEP_SECONDS)]
    except ValueError as error:
        raise click.ClickException("This is no key of an authenticator.") from error
    click.echo(f"{codes[0]}  for {_STEP_SECONDS - now % _STEP_SECONDS} s")
    click.echo(f"{codes[1]}  after that; each code works once")


if __name__ == "__main__":
    main()
