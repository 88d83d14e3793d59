"""Bundles: one run always gives the same bytes, and changes to a bundle are detected.

A hostile archive is refused with a message that names the bad member.
"""

import errno
import gzip
import io
import json
import re
import shutil
import tarfile
from hashlib import sha256
from types import SimpleNamespace

import pytest
import zstandard
from calling import call
from toy_task import TOY

from harness.base.errors import ConfigError, InfrastructureError
from harness.report.bundle import unpack
from harness.report.bundle.manifest import NAME
from harness.report.bundle.pack import pack
from harness.report.bundle.verify import describe, verify
from report.made import made_run
from scorers.score import Score


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return made_run(tmp_path_factory.mktemp("made"), nodes=7, name="run")


def checked(archive, tmp_path):
    folder = tmp_path / "unpacked"
    folder.mkdir()
    return verify(archive, folder, rescore=None)


def test_a_run_comes_out_as_it_went_in(made, tmp_path):
    for name in ("b.tar.zst", "b.tar.gz"):
        (tmp_path / name).mkdir()
        archive = tmp_path / name / name
        pack(made, archive)
        check = checked(archive, tmp_path / name)
        assert (check.nodes, check.verdict) == (7, "not scored again")
        out = tmp_path / name / "unpacked"
        before = {f.relative_to(made): f.read_bytes() for f in made.rglob("*") if f.is_file()}
        after = {f.relative_to(out): f.read_bytes() for f in out.rglob("*") if f.is_file()}
        assert after == {k: v for k, v in before.items() if k.name != ".lock"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, ""),
        ({"source": "climbmix"}, ""),
        ({"source": "/home/them/texts"}, "its data are a folder of whoever made it"),
        ({"source": "imdb"}, "its data are a folder of whoever made it"),  # unknown to this task
    ],
)
def test_data_that_the_task_knows_by_name_are_anybodys(tmp_path, data, reason):
    pack(made_run(tmp_path, nodes=6, name="run", data=data), tmp_path / "b.tar.gz")
    assert checked(tmp_path / "b.tar.gz", tmp_path).reason.partition(":")[0] == reason


def test_the_same_run_gives_the_same_bytes_whatever_its_files_times(made, tmp_path):
    run = shutil.copytree(made, tmp_path / "run")
    pack(run, tmp_path / "a.tar.zst")
    for file in run.rglob("*.py"):
        file.touch()
        file.chmod(0o700)
    pack(run, tmp_path / "b.tar.zst")
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()


def test_a_run_with_a_link_or_without_a_result_is_not_packed(tmp_path):
    run = made_run(tmp_path, nodes=6, name="run")
    (run / "nodes/0000/notes").symlink_to("/etc/passwd")
    with pytest.raises(ConfigError, match="notes cannot be packed"):
        pack(run, tmp_path / "a.tar.zst")
    (run / "nodes/0000/notes").unlink()
    with pytest.raises(ConfigError, match="does not say what"):
        pack(run, tmp_path / "a.zip")
    (run / "result.json").unlink()
    with pytest.raises(ConfigError, match="no result") as caught:
        pack(run, tmp_path / "a.tar.zst")
    assert "harness resume" in caught.value.remedy
    assert not list(tmp_path.glob("*a.*"))


@pytest.fixture
def packed(made, tmp_path):
    """A bundle of the run, its files but for the manifest, and the manifest's bytes."""
    archive = tmp_path / "a.tar.gz"
    pack(made, archive)
    files = contents(archive)
    return archive, files, files.pop(NAME)


def contents(archive):
    with gzip.open(archive) as stream, tarfile.open(fileobj=stream) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}


def written(archive, files, extra=()):
    """Write a bundle with a manifest that matches ``files``, then add the members ``extra``."""
    listed = [
        {"path": n, "bytes": len(c), "sha256": sha256(c).hexdigest()} for n, c in files.items()
    ]
    manifest = {
        "run": "run", "harness": "0", "task": "autoresearch", "profile": "paper",
        "metric": "bits_per_byte", "score": 1.0, "files": listed,
    }  # fmt: skip
    _rewrite(archive, json.dumps(manifest).encode(), files, extra)
    return archive


def member(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


ODD = {
    "a link": (member("link", tarfile.SYMTYPE, "/etc/passwd"), "'link' .* a symbolic link"),
    "a hard link": (member("hard", tarfile.LNKTYPE, "run.toml"), "'hard' .* a hard link"),
    "a device": (member("dev", tarfile.CHRTYPE), "'dev' .* a device"),
    "a disk": (member("disk", tarfile.BLKTYPE), "'disk' .* a device"),
    "a pipe": (member("pipe", tarfile.FIFOTYPE), "'pipe' .* a pipe"),
    "a folder": (member("folder", tarfile.DIRTYPE), "folder of its own"),
    "up": (member("../up"), "'../up' .* no name inside a run"),
    "up later": (member("nodes/../../up"), "no name inside a run"),
    "absolute": (member("/etc/cron.d/x"), "'/etc/cron.d/x' .* no name inside a run"),
    "windows": (member("a\\..\\b"), "no name inside a run"),
    "hidden": (member(".ssh/authorized_keys"), "no name inside a run"),
    "escape": (member("a\x1b[2Jb"), "no name inside a run"),
    "long name": (member("a" * 300), "name that is too long"),
    "unlisted": (member("more.py"), "'more.py' .* is not in MANIFEST"),
    "twice": (member("run.toml"), "'run.toml' .* is there twice"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_members_are_refused_by_name_and_nothing_lands_outside(odd, tmp_path):
    info, said = ODD[odd]
    archive = written(tmp_path / "x.tar.gz", {"run.toml": b"x"}, [(info, b"")])
    with pytest.raises(unpack.BadBundle, match=said):
        checked(archive, tmp_path)
    found = {p.name for p in tmp_path.rglob("*")}
    assert found <= {"x.tar.gz", "unpacked", "run.toml"}


def test_an_extended_header_is_refused_before_it_is_read(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo(NAME)
        info.pax_headers = {"comment": "x" * 1000}
        tar.addfile(info)
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(unpack.BadBundle, match="extended header"):
        checked(archive, tmp_path)


@pytest.mark.parametrize("packer", ["gz", "zst"])
def test_a_bomb_stops_early(packer, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "FREE_BYTES", 1 << 20)
    monkeypatch.setattr(unpack, "MOST_RATIO", 20)
    plain = written(tmp_path / "x.tar.gz", {"run.toml": bytes(8 << 20)}).read_bytes()
    if packer == "zst":
        plain = zstandard.ZstdCompressor().compress(gzip.decompress(plain))
    archive = tmp_path / "bomb"
    archive.write_bytes(plain)
    with pytest.raises(unpack.BadBundle, match="a bomb"):
        checked(archive, tmp_path)
    assert (tmp_path / "unpacked/run.toml").stat().st_size <= 1 << 20


def test_a_file_that_says_it_is_huge_is_refused(tmp_path):
    info = tarfile.TarInfo(NAME)
    info.size = 1 << 40
    archive = tmp_path / "x.tar.gz"
    archive.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT)))
    with pytest.raises(unpack.BadBundle, match="larger than 256 MiB"):
        checked(archive, tmp_path)


def test_every_changed_missing_or_cut_file_is_seen(packed, tmp_path):
    whole, files, manifest = packed
    for name in ("events.jsonl", "nodes/0003/train.py", "result.json"):
        changed = {**files, name: files[name].replace(b"0", b"1", 1)}
        archive = tmp_path / "changed.tar.gz"
        _rewrite(archive, manifest, changed)
        with pytest.raises(ConfigError, match=f"{re.escape(name)} in .* SHA-256 differs"):
            checked(archive, tmp_path / _fresh(tmp_path))
        _rewrite(archive, manifest, {k: v for k, v in files.items() if k != name})
        with pytest.raises(ConfigError, match=rf"{re.escape(name)} is missing in \S+\.gz\.$"):
            checked(archive, tmp_path / _fresh(tmp_path))
    content = whole.read_bytes()
    for at in (3, 100, len(content) // 2, len(content) - 1200):
        whole.write_bytes(content[:at])
        with pytest.raises(ConfigError, match=r"a\.tar\.gz is damaged\."):
            checked(whole, tmp_path / _fresh(tmp_path))


def _fresh(tmp_path):
    folder = tmp_path / f"f{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    return folder


def _rewrite(archive, manifest, files, extra=()):
    """Write a bundle of a manifest and files, whether they fit or not, and of members ``extra``."""
    buffer = io.BytesIO()
    named = ((tarfile.TarInfo(n), c) for n, c in ((NAME, manifest), *files.items()))
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, content in (*named, *extra):
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    archive.write_bytes(gzip.compress(buffer.getvalue()))


def test_what_cannot_be_written_is_not_blamed_on_the_archive(packed, tmp_path, monkeypatch):
    archive, *_ = packed
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "nodes").write_text("in the way")
    with pytest.raises(ConfigError, match="taken/nodes") as told:
        unpack.unpack(archive, tmp_path / "taken")
    assert str(archive) not in str(told.value)
    (tmp_path / "new").mkdir()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(unpack, "sha256", lambda: SimpleNamespace(update=full))
    with pytest.raises(InfrastructureError, match="new/") as told:
        unpack.unpack(archive, tmp_path / "new")
    assert "No space left" in str(told.value)
    assert str(archive) not in str(told.value)


def test_a_manifest_that_fits_a_forged_file_does_not_fit_the_journal(packed, tmp_path):
    _, files, manifest = packed
    manifest = json.loads(manifest)
    forged = {**files, "nodes/0003/train.py": files["nodes/0003/train.py"] + b"# better\n"}
    for entry in manifest["files"]:
        content = forged[entry["path"]]
        entry |= {"bytes": len(content), "sha256": sha256(content).hexdigest()}
    archive = tmp_path / "forged.tar.gz"
    _rewrite(archive, json.dumps(manifest).encode(), forged)
    with pytest.raises(ConfigError, match="not what the journal recorded"):
        checked(archive, tmp_path)


def test_a_claim_that_the_run_does_not_hold_is_seen(packed, tmp_path):
    _, files, manifest = packed
    archive = tmp_path / "claim.tar.gz"
    _rewrite(archive, json.dumps({**json.loads(manifest), "score": 0.9}).encode(), files)
    with pytest.raises(ConfigError, match="contradicts itself: result.json"):
        checked(archive, tmp_path)


def test_a_strangers_journal_that_names_a_device_is_refused(tmp_path):
    from harness.store.state import load_files

    for name in ("/dev/zero", "../../../../dev/zero", "a/../../x"):
        with pytest.raises(ConfigError, match="no file of a submission"):
            load_files(tmp_path, {name: "0" * 64})
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside/a.py").write_text("x")
    good = {"a.py": sha256(b"x").hexdigest()}
    assert load_files(tmp_path / "inside/../inside", good) == {"a.py": "x"}


def test_a_score_is_judged_by_its_own_error_and_other_conditions_are_no_proof(made, tmp_path):
    archive = tmp_path / "a.tar.zst"
    pack(made, archive)
    old = Score.model_validate_json((made / "final/score.json").read_text())
    moved = old.conditions.model_copy(update={"versions": {"torch": "3.0"}})
    cases = [
        (old.model_copy(update={"score": old.score + 0.0015}), None, "agrees"),
        (old.model_copy(update={"score": old.score + 0.0017}), None, "differs"),
        (old.model_copy(update={"score": old.score + 0.0017}), 0.01, "agrees"),
        (old.model_copy(update={"score": None, "valid": False}), None, "differs"),
        (old.model_copy(update={"score": 2.0, "conditions": moved}), None, "cannot tell"),
    ]
    for new, tolerance, verdict in cases:
        folder = _fresh(tmp_path)
        check = verify(archive, folder, rescore=lambda _, n=new: (old, n), tolerance=tolerance)
        assert check.verdict == verdict
        assert verdict in describe(check)
    assert check.other_conditions == ("torch",)


def test_a_real_run_is_scored_again_by_one_command(isolating, tmp_path):
    call("run", *TOY, "--steps", 1, "--runs-dir", tmp_path / "runs")
    (run,) = (tmp_path / "runs").iterdir()
    archive = tmp_path / "run.tar.zst"
    packed = call("bundle", run, "-o", archive)
    assert sha256(archive.read_bytes()).hexdigest() in packed.stdout
    said = call("verify", archive, "--json").json
    assert (said["verdict"], said["hashes"], said["nodes"]) == ("agrees", "agree", 1)
    assert said["then"] == said["now"]
    # Forge the score; the submission stays the same.
    for file in (run / "result.json", run / "final/score.json"):
        text = file.read_text().replace(f'"score": {said["then"]}', '"score": 0.123')
        file.write_text(text)
    lied = call("bundle", run, "-o", tmp_path / "lie.tar.zst", code=2)
    assert "contradicts itself: events.jsonl" in lied.stderr
    assert not (tmp_path / "lie.tar.zst").exists()
