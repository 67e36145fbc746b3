"""Tests of settings/reading.py."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from settings import (
    DECLARATIONS,
    UNLIMITED,
    Settings,
    SettingsError,
    help_requested,
    help_text,
    read_settings,
)
from tests.settings.test_kinds import pem_of

SECRET = "0123456789abcdef0123456789abcdef"
PUBLIC_KEY = pem_of(ec.generate_private_key(ec.SECP256R1()))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A path for a file of settings."""
    return tmp_path / "tailcast.toml"


def test_nothing_given_is_the_defaults() -> None:
    """Without any setting the server has its defaults; variables of others are none of its business."""
    assert read_settings([], {"PATH": "/bin", "TAILCASTING": "1"}) == Settings()


def test_command_line_precedes_environment_precedes_file(config: Path) -> None:
    """Of a setting given several times the command line counts, else the environment, else the file."""
    config.write_text('port = 1\ndatabase = "of_file"\nlog_level = "error"\n')
    settings = read_settings([f"--config={config}", "--port=3"], {"TAILCAST_PORT": "2", "TAILCAST_DATABASE": "of_environment"})
    assert (settings.port, settings.database, settings.log_level) == (3, "of_environment", "ERROR")


def test_the_file_may_be_named_in_the_environment(config: Path) -> None:
    """TAILCAST_CONFIG names the file as --config does."""
    config.write_text("port = 1\n")
    assert read_settings([], {"TAILCAST_CONFIG": str(config)}).port == 1


def test_file_holds_toml_values(config: Path) -> None:
    """Numbers, switches and lists of TOML are taken as such; a name may have hyphens."""
    config.write_text('demo = true\nstale-seconds = 1.5\nwindow_bytes = "1MiB"\nallowed_origins = ["http://a.b", "http://c.d"]\n')
    settings = read_settings([f"--config={config}"], {})
    assert settings.demo
    assert settings.stale_seconds == 1.5
    assert settings.window_bytes == 2**20
    assert settings.allowed_origins == ("http://a.b", "http://c.d")


def test_switch_may_stand_alone_and_names_may_have_hyphens() -> None:
    """`--demo` is `--demo=true`, and `--log-bytes` is `--log_bytes`."""
    settings = read_settings(["--demo", "--log-bytes=2GiB", "--drain_seconds=0.5"], {})
    assert (settings.demo, settings.log_bytes, settings.drain_seconds) == (True, 2**31, 0.5)


def test_the_last_of_one_name_on_the_command_line_counts() -> None:
    """A setting that is given twice on the command line has the value given last."""
    assert read_settings(["--port=1", "--port=2"], {}).port == 2


def test_zero_switches_limits_off() -> None:
    """0 for a limit is a number that nothing exceeds, 0 for a deadline a time that never comes."""
    settings = read_settings(["--connections_per_user=0", "--connects_per_minute=0", "--stale_seconds=0"], {})
    assert settings.connections_per_user == settings.connects_per_minute == UNLIMITED
    assert settings.stale_seconds == math.inf


def test_secret_is_taken_from_the_environment_or_a_file_it_names(tmp_path: Path) -> None:
    """A secret comes as TAILCAST_NAME or as the content of TAILCAST_NAME_FILE, less its last line end."""
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert read_settings([], {"TAILCAST_JWT_SECRET": SECRET}).jwt_secret == SECRET
    assert read_settings([], {"TAILCAST_JWT_SECRET_FILE": str(file)}).jwt_secret == SECRET


def test_uri_with_password_is_a_secret_and_one_without_is_not() -> None:
    """The URI of MongoDB may stand on the command line as long as it holds no password."""
    assert read_settings(["--mongodb_uri=mongodb://h:1/"], {}).mongodb_uri == "mongodb://h:1/"
    with_password = "mongodb://me:pw@h:1/"
    assert read_settings([], {"TAILCAST_MONGODB_URI": with_password}).mongodb_uri == with_password
    with pytest.raises(SettingsError, match=r"^--mongodb_uri: a secret is taken from the environment only"):
        read_settings([f"--mongodb_uri={with_password}"], {})


def test_algorithms_follow_from_the_keys() -> None:
    """Without `jwt_algorithms`, those are allowed that the given keys are for; without keys, none."""
    both = {"TAILCAST_JWT_SECRET": SECRET, "TAILCAST_JWT_PUBLIC_KEY": PUBLIC_KEY}
    assert read_settings([], {}).jwt_algorithms == ()
    assert read_settings([], {"TAILCAST_JWT_SECRET": SECRET}).jwt_algorithms == ("HS256",)
    assert read_settings([], both).jwt_algorithms == ("HS256", "ES256")
    assert read_settings(["--jwt_algorithms=es256,hs256"], both).jwt_algorithms == ("ES256", "HS256")


def test_published_keys_may_be_for_any_algorithm_but_that_of_secrets() -> None:
    """With `jwks_url`, all algorithms of public keys are allowed, or those of them that `jwt_algorithms` names."""
    url = "--jwks_url=https://i.example/keys"
    assert read_settings([url], {}).jwt_algorithms == ("RS256", "ES256", "EdDSA")
    assert read_settings([url], {"TAILCAST_JWT_SECRET": SECRET}).jwt_algorithms == ("HS256", "RS256", "ES256", "EdDSA")
    assert read_settings([url, "--jwt_algorithms=RS256"], {}).jwt_algorithms == ("RS256",)


def test_public_keys_may_come_in_a_file_that_the_environment_names(tmp_path: Path) -> None:
    """TAILCAST_JWT_PUBLIC_KEY_FILE names a file as the setting itself does; several keys of one kind are for one algorithm."""
    file = tmp_path / "keys.pem"
    file.write_text(PUBLIC_KEY + pem_of(ec.generate_private_key(ec.SECP256R1())))
    for variable in ("TAILCAST_JWT_PUBLIC_KEY", "TAILCAST_JWT_PUBLIC_KEY_FILE"):
        settings = read_settings([], {variable: str(file)})
        assert settings.jwt_algorithms == ("ES256",)
        assert settings.jwt_public_key.strip() == file.read_text().strip()


@pytest.mark.parametrize(
    ("argv", "environ", "line"),
    [
        (["--prot=1"], {}, "--prot: there is no such setting; did you mean port?"),
        (["--zzz=1"], {}, "--zzz: there is no such setting; --help lists all settings"),
        (["--z\nz=1"], {}, "'--z\\nz': there is no such setting; --help lists all settings"),
        (["--zzz"], {}, "--zzz: there is no such setting; --help lists all settings"),
        (["8080"], {}, "'8080': expected --name=value; --help lists all names"),
        (["--port"], {}, "--port: expected a value, as in --port=VALUE"),
        (["--config"], {}, "--config: expected a value, as in --config=VALUE"),
        (["--port=x\ny"], {}, "--port: expected a whole number from 0 to 65535, not 'x\\ny'"),
        (["--port=65536"], {}, "--port: expected a whole number from 0 to 65535, not '65536'"),
        ([], {"TAILCAST_PORT": ""}, "TAILCAST_PORT: expected a whole number from 0 to 65535, not ''"),
        (
            [],
            {"TAILCAST_LOG_BYTE": "1"},
            "TAILCAST_LOG_BYTE: there is no such setting; did you mean log_bytes?",
        ),
        ([], {"TAILCAST_PORT_FILE": "x"}, "TAILCAST_PORT_FILE: there is no such setting; did you mean port?"),
        (
            ["--jwt_secret=" + SECRET],
            {},
            "--jwt_secret: a secret is taken from the environment only: set TAILCAST_JWT_SECRET, "
            "or TAILCAST_JWT_SECRET_FILE to the path of a file with it",
        ),
        (
            [],
            {"TAILCAST_JWT_SECRET": "short"},
            "TAILCAST_JWT_SECRET: expected a secret of 32 bytes or more, not of 5",
        ),
        (
            [],
            {"TAILCAST_JWT_SECRET_FILE": "/no/such/file"},
            "TAILCAST_JWT_SECRET_FILE: cannot read '/no/such/file': No such file or directory",
        ),
        (
            [],
            {"TAILCAST_JWT_SECRET": SECRET, "TAILCAST_JWT_SECRET_FILE": "/dev/null"},
            "TAILCAST_JWT_SECRET and TAILCAST_JWT_SECRET_FILE: expected one of them, not both",
        ),
        (
            [],
            {"TAILCAST_MONGODB_URI": "http://me:pw@h/"},
            "TAILCAST_MONGODB_URI: expected a URI that starts with mongodb:// or mongodb+srv://, not 'http://me:[redacted]@h/'",
        ),
        (
            ["--jwks_url=http://i.example/"],
            {},
            "--jwks_url: expected an https URL (http only to a loopback address), without a password or fragment",
        ),
        (
            ["--jwks_url=https://i.example/", "--jwt_algorithms=HS256"],
            {"TAILCAST_JWT_SECRET": SECRET},
            "jwt_algorithms: no algorithm is allowed that the keys of jwks_url could be for",
        ),
        (
            ["--jwt_algorithms=HS256"],
            {},
            "jwt_algorithms: HS256 is allowed, but none of jwt_secret, jwt_public_key and jwks_url is for it",
        ),
        (
            ["--jwt_algorithms=HS256"],
            {"TAILCAST_JWT_SECRET": SECRET, "TAILCAST_JWT_PUBLIC_KEY": PUBLIC_KEY},
            "jwt_algorithms: ES256 is not allowed, but there is a key for it, which would go unused",
        ),
        (
            ["--revocation_seconds=600", "--session_seconds=60"],
            {},
            "revocation_seconds: expected 3600 or more, since resume_seconds is that long: what is revoked would hold again",
        ),
        (["--tls_certificate=server.pem"], {}, "tls_key: needed, since tls_certificate is given"),
        ([], {"TAILCAST_TLS_KEY": "server.key"}, "tls_certificate: needed, since tls_key is given"),
        (["--tls_key=-----BEGIN PRIVATE KEY-----"], {}, "--tls_key: expected the path of a PEM file, not what is in one"),
        (["--config=/no/such.toml"], {}, "--config: cannot read '/no/such.toml': No such file or directory"),
    ],
)
def test_mistakes_are_refused_in_one_line(argv: list[str], environ: dict[str, str], line: str) -> None:
    """An unknown name or a bad value is refused by one line that names it and what was expected."""
    with pytest.raises(SettingsError) as caught:
        read_settings(argv, environ)
    assert str(caught.value) == line
    assert len(line.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("port = 'x'", "port in FILE: expected a whole number from 0 to 65535, not 'x'"),
        ("prot = 1", "prot in FILE: there is no such setting; did you mean port?"),
        ("[log]\nbytes = 1", "log in FILE: there is no such setting; --help lists all settings"),
        ("port = 2020-01-01", "port in FILE: expected text, a number, true, false or a list"),
        (f"jwt_secret = '{SECRET}'", "jwt_secret in FILE: a secret is taken from the environment only: set "),
        ("port = ", "--config: 'FILE' is no TOML: "),
        ("\udcff", "--config: 'FILE' is no TOML: "),
    ],
)
def test_mistakes_in_the_file_are_refused(content: str, expected: str, config: Path) -> None:
    """A mistake in the file is refused by the names of setting and file; a secret does not belong there."""
    config.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SettingsError) as caught:
        read_settings([f"--config={config}"], {})
    assert str(caught.value).startswith(expected.replace("FILE", str(config)))
    assert SECRET not in str(caught.value)


def test_secret_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """A secret file with other bytes than text is refused by its name."""
    file = tmp_path / "secret"
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(SettingsError, match=r"TAILCAST_JWT_SECRET_FILE: cannot read '.*secret': it is no text"):
        read_settings([], {"TAILCAST_JWT_SECRET_FILE": str(file)})


def test_help_lists_every_setting_with_its_default() -> None:
    """`--help` shows every name, default and meaning, on lines that fit a terminal, but for a default that is a list."""
    text = help_text()
    for one in DECLARATIONS:
        assert f"  {one.name} = {one.shown(one.default)}".rstrip() + "\n" in text
        assert one.meaning.split(";")[0][:40] in text
    assert max(len(line) for line in text.splitlines() if "," not in line.partition(" = ")[2]) <= 105
    assert help_requested(["--port=1", "--help"])
    assert help_requested(["-h"])
    assert not help_requested(["--port=1"])
