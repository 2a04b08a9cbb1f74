"""Wrong settings of a guard are named, all of them, before anything starts."""

import pytest

from titer.core.errors import SpecError
from titer.guard.home import Home
from titer.guard.settings import load
from titer.guard.store.database import connect


def test_settings_that_stand_empty_have_safe_defaults(home: Home) -> None:
    home.settings.write_text("")
    settings = load(home)
    assert settings.dicom.host == settings.web.host == "127.0.0.1"
    assert settings.route("CT", "CT1") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[dicom", "is no TOML"),
        ("[dicom]\nport = 99999", "dicom.port = 99999"),
        ('[dicom]\nae_title = "A\\\\B"', "dicom.ae_title"),
        ("[dicom]\nprot = 1", "dicom.prot is no setting"),
        ('[[routes]]\nname = "a"\nimages = ["pacs"]', "routes.a: destination 'pacs' is not known"),
        ('[[routes]]\nname = "a"\n[[routes]]\nname = "a"', "the name 'a' stands there twice"),
        ('[[destinations]]\nname = "p"\nkind = "dicom"\naddress = "h:1"', "needs ae_title"),
        ('[[routes]]\nname = "a"\nlayers = ["modle"]', "routes.0.layers.0 = 'modle'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(home: Home, text: str, said: str) -> None:
    home.settings.write_text(text)
    with pytest.raises(SpecError) as error:
        load(home)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["mysql://h/n", "guard.db", "postgresql://me:secret@h/n", "sqlite+evil:///x", "postgresql+pg8000://h/n"]
)
def test_another_database_or_a_password_in_its_url_is_refused(home: Home, url: str) -> None:
    with pytest.raises(SpecError) as error:
        connect(home, url)
    assert "secret" not in str(error.value)


def test_a_folder_without_a_guard_says_how_to_make_one(home: Home) -> None:
    home.settings.unlink()
    with pytest.raises(SpecError, match="titer guard init"):
        load(home)


def test_the_first_route_that_takes_an_object_has_it(home: Home) -> None:
    home.settings.write_text(
        '[[routes]]\nname = "chest"\nmodalities = ["CR", "DX"]\n[[routes]]\nname = "mri"\ncalling_ae = ["MR1"]\n'
    )
    settings = load(home)
    assert settings.route("DX", "MR1").name == "chest"
    assert settings.route("MR", "MR1").name == "mri"
    assert settings.route("MR", "MR2") is None
