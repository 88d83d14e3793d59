"""Tests reading the published formats of the LRA data, from small made files, whole or damaged."""

import gzip
import io
import os
import pickle
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.base.errors import ConfigError
from tasks.lra.image import cifar, fashion
from tasks.lra.pathfinder import release
from tasks.lra.text import imdb
from tasks.spec import find_task


def prepare(name: str, source: Path, root: Path, profile: str = "short", **more: Any) -> Any:
    return find_task(name).prepare(profile, root, lambda *_: None, {"source": str(source), **more})


def fails(name: str, source: Path, root: Path, **more: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        prepare(name, source, root, **more)
    folders = [p for p in root.iterdir() if p.is_dir()] if root.exists() else []
    assert folders == [], "something was left that may be taken for data"
    return caught.value


def texts(folder: Path, split: str) -> set[tuple[bytes, int]]:
    tokens = np.load(folder / split / "tokens.npy")
    labels = np.load(folder / split / "labels.npy")
    return {
        (bytes((row[row > 0] - 1).astype(np.uint8)), int(label))
        for row, label in zip(tokens, labels, strict=True)
    }


# ---------------------------------------------------------------- text: IMDb


def reviews(half: str) -> list[tuple[str, int]]:
    return [
        (f"{half} <br />r\u00e9view {n} is {'Good' if n % 2 else 'bad'}", n % 2) for n in range(20)
    ]


def as_archive(folder: Path) -> None:
    with tarfile.open(folder / imdb.ARCHIVE.name, "w:gz") as tar:
        for half in ("train", "test"):
            extra = [("unsup", "unlabelled", 0)] if half == "train" else []
            for kind, text, n in [
                *(("pos" if label else "neg", t, i) for i, (t, label) in enumerate(reviews(half))),
                *extra,
            ]:
                entry = tarfile.TarInfo(f"aclImdb/{half}/{kind}/{n}_{7}.txt")
                entry.size = len(text.encode())
                tar.addfile(entry, io.BytesIO(text.encode()))
            for name in (f"aclImdb/{half}/labeledBow.feat", "aclImdb/README"):
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())


def as_folders(folder: Path) -> None:
    for half in ("train", "test"):
        for number, (text, label) in enumerate(reviews(half)):
            place = folder / "aclImdb" / half / ("pos" if label else "neg")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}_7.txt").write_bytes(text.encode())


def as_parquet(folder: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for half in ("train", "test"):
        rows, labels = zip(*reviews(half), strict=True)
        table = pa.table({"text": list(rows), "label": list(labels)})
        pq.write_table(table, folder / f"{half}.parquet", row_group_size=7)


IMDB = {"archive": as_archive, "folders": as_folders, "parquet": as_parquet}


@pytest.mark.parametrize("form", IMDB)
def test_imdb_is_read_in_every_published_form(form: str, tmp_path: Path) -> None:
    IMDB[form](tmp_path)
    folder, manifest = prepare("lra/text", tmp_path, tmp_path / "data", search=6)
    assert manifest.rows == {"train": 14, "search": 6, "test": 20}
    want = {(t.encode(), label) for t, label in reviews("train")}
    assert texts(folder, "train") | texts(folder, "search") == want
    assert texts(folder, "test") == {(t.encode(), label) for t, label in reviews("test")}
    assert np.load(folder / "search" / "labels.npy").sum() == 3
    if form != "archive":  # all forms give the same bytes
        (tmp_path / "again").mkdir()
        as_archive(tmp_path / "again")
        _, other = prepare("lra/text", tmp_path / "again", tmp_path / "data", search=6)
        assert other.hash == manifest.hash


@pytest.mark.parametrize("form", IMDB)
def test_a_changed_source_is_other_data(form: str, tmp_path: Path) -> None:
    IMDB[form](tmp_path)
    first, _ = prepare("lra/text", tmp_path, tmp_path / "data", search=6)
    assert prepare("lra/text", tmp_path, tmp_path / "data", search=6)[0] == first
    changed = imdb.files(tmp_path)[0]  # a file, or a folder in which one was added or removed
    later = changed.stat().st_mtime_ns + 1_000_000_000
    os.utime(changed, ns=(later, later))
    assert prepare("lra/text", tmp_path, tmp_path / "data", search=6)[0] != first


def test_changed_pairs_are_other_data(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    first, _ = prepare("lra/retrieval", tmp_path, tmp_path / "data", length=32, search=20)
    write_pairs(tmp_path, count=31)
    second, _ = prepare("lra/retrieval", tmp_path, tmp_path / "data", length=32, search=20)
    assert first != second


def test_a_review_of_the_test_half_is_never_trained_on(tmp_path: Path) -> None:
    as_folders(tmp_path)
    stray = tmp_path / "aclImdb" / "train" / "pos" / "99_9.txt"
    stray.write_bytes(reviews("test")[1][0].encode())
    folder, _ = prepare("lra/text", tmp_path, tmp_path / "data", search=6)
    assert not (texts(folder, "train") | texts(folder, "search")) & texts(folder, "test")


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "half"])
def test_a_broken_imdb_archive_is_named(damage: str, tmp_path: Path) -> None:
    as_archive(tmp_path)
    archive = tmp_path / imdb.ARCHIVE.name
    whole = archive.read_bytes()
    match damage:
        case "cut":
            archive.write_bytes(whole[: len(whole) * 2 // 3])
        case "noise":
            middle = len(whole) // 2
            archive.write_bytes(whole[:middle] + bytes(200) + whole[middle + 200 :])
        case "empty":
            archive.write_bytes(b"")
        case "half":  # an intact archive with other contents
            with tarfile.open(archive, "w:gz") as tar:
                tar.addfile(tarfile.TarInfo("aclImdb/train/pos/0_7.txt"), io.BytesIO())
    error = fails("lra/text", tmp_path, tmp_path / "data")
    assert str(archive) in error.message
    assert error.remedy


@pytest.mark.parametrize("damage", ["truncated", "columns", "labels", "null"])
def test_a_bad_parquet_file_is_named(damage: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    as_parquet(tmp_path)
    bad = tmp_path / "train.parquet"
    match damage:
        case "truncated":
            bad.write_bytes(bad.read_bytes()[:-300])
        case "columns":
            pq.write_table(pa.table({"review": ["a"], "label": [1]}), bad)
        case "labels":
            pq.write_table(pa.table({"text": ["a", "b"], "label": [0, 2]}), bad)
        case "null":
            pq.write_table(pa.table({"text": ["a", None], "label": [0, 1]}), bad)
    error = fails("lra/text", tmp_path, tmp_path / "data")
    assert str(bad) in error.message
    assert error.remedy
    if damage == "columns":
        assert "review" in error.cause


# ---------------------------------------------------------------- retrieval: AAN


def write_pairs(folder: Path, count: int = 30) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for split, offset in (("train", 0), ("eval", 100), ("test", 200)):
        lines = [
            b"%.1f\tP%d\tQ%d\ttext \xe9 %d of %s\tother text, \"quoted\" %d"
            % (n % 2, n + offset, n + offset, n, split.encode(), n)
            for n in range(count)
        ]  # fmt: skip
        (folder / f"new_aan_pairs.{split}.tsv").write_bytes(b"\n".join(lines) + b"\n")


@pytest.mark.parametrize("place", [".", "tsv_data", "lra_release/lra_release/tsv_data"])
def test_aan_is_read_as_released(place: str, tmp_path: Path) -> None:
    write_pairs(tmp_path / place)
    folder, manifest = prepare("lra/retrieval", tmp_path, tmp_path / "data", length=32, search=20)
    assert manifest.rows == {"train": 30, "search": 20, "test": 30}
    rows = np.load(folder / "train" / "tokens.npy").reshape(30, 2, 32)
    text = [bytes((d[d > 0] - 1).astype(np.uint8)) for d in rows[3]]
    assert text == [b"text \xe9 3 of train", b'other text, "quoted" 3']
    assert np.load(folder / "train" / "labels.npy").tolist() == [n % 2 for n in range(30)]


def test_documents_of_hidden_pairs_are_counted_and_can_be_left_out(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    test = tmp_path / "new_aan_pairs.test.tsv"
    test.write_bytes(test.read_bytes().replace(b"P200\t", b"P0\t").replace(b"Q201\t", b"Q3\t"))
    _, counted = prepare("lra/retrieval", tmp_path, tmp_path / "data", length=32)
    assert counted.parameters["pairs_with_training_documents_test"] == pytest.approx(2 / 30, 1e-4)
    assert counted.rows["train"] == 30
    _, apart = prepare(
        "lra/retrieval", tmp_path, tmp_path / "data", length=32, documents="disjoint"
    )
    assert apart.parameters["pairs_with_training_documents_test"] == 0
    assert apart.rows["train"] == 28


@pytest.mark.parametrize(
    ("line", "word"),
    [(b"1.0\tP1\tQ1\tonly one text", "4 fields"), (b"2.0\tP\tQ\ta\tb", "2.0"), (b"\x00", "1 f")],
)
def test_a_line_that_is_no_pair_is_named(line: bytes, word: str, tmp_path: Path) -> None:
    write_pairs(tmp_path)
    bad = tmp_path / "new_aan_pairs.eval.tsv"
    bad.write_bytes(bad.read_bytes() + line + b"\n")
    error = fails("lra/retrieval", tmp_path, tmp_path / "data")
    assert f"{bad}, line 31" in error.message
    assert word in error.cause


def test_a_missing_file_of_the_release_is_named(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    (tmp_path / "new_aan_pairs.test.tsv").unlink()
    error = fails("lra/retrieval", tmp_path, tmp_path / "data")
    assert "new_aan_pairs.test.tsv" in error.remedy
    assert str(tmp_path) in error.message


# ---------------------------------------------------------------- image: CIFAR-10, Fashion-MNIST


@pytest.fixture
def small_cifar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use batches of 20 images, so that a test is fast; the format is the same."""
    monkeypatch.setattr(cifar, "BATCH", 20)
    from tasks.lra.image import data

    monkeypatch.setattr(data, "TEST_ROWS", 20)


def batches() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(5)
    return {
        name: (rng.integers(0, 256, (20, 3072), np.uint8), np.arange(20, dtype=np.uint8) % 10)
        for name in cifar.PYTHON
    }


def as_published_pickle(pixels: np.ndarray, labels: np.ndarray, name: str) -> bytes:
    """Return a pickle as Python 2 wrote it: protocol 2, byte strings, names of an old numpy."""
    array = pickle.dumps(pixels, protocol=2)
    assert array.startswith(b"\x80\x02c")
    array = array.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    head = b"\x80\x02}q\x00(U\x0bbatch_labelU" + bytes([len(name)]) + name.encode()
    rows = b"".join(b"K" + bytes([label]) for label in labels)
    return head + b"U\x06labels](" + rows + b"eU\x04data" + array[2:-1] + b"u."


def write_python(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, (pixels, labels) in batches().items():
        (folder / name).write_bytes(as_published_pickle(pixels, labels, name))


def write_binary(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name, (pixels, labels) in batches().items():
        records = np.concatenate((labels[:, None], pixels), axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())


CIFAR = {
    "cifar-10-batches-py": write_python,
    "cifar-10-batches-bin": write_binary,
    cifar.PYTHON_ARCHIVE: write_python,
    cifar.ARCHIVE.name: write_binary,
}


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize("form", CIFAR)
def test_cifar_is_read_in_every_published_form(form: str, tmp_path: Path) -> None:
    place = tmp_path / ("made" if form.endswith("gz") else form)
    CIFAR[form](place)
    if form.endswith("gz"):
        with tarfile.open(tmp_path / form, "w:gz") as tar:
            inside = "cifar-10-batches-py" if "python" in form else "cifar-10-batches-bin"
            tar.add(place, inside)
    folder, manifest = prepare("lra/image", tmp_path, tmp_path / "data")
    assert manifest.rows == {"train": 90, "search": 10, "test": 20}
    assert manifest.shape["padded"] == 0
    pixels, labels = batches()["test_batch"]
    found = np.load(folder / "test" / "tokens.npy")
    assert (np.load(folder / "test" / "labels.npy") == labels).all()
    red, green, blue = pixels.reshape(20, 3, 1024).astype(float).swapaxes(0, 1)
    grey = (0.2989 * red + 0.587 * green + 0.114 * blue) / 255 * 255.5
    assert np.abs(found - np.floor(grey)).max() <= 1  # the rounding of float32
    assert (found == np.floor(grey)).mean() > 0.999
    last = batches()["data_batch_5"][1][10:]
    assert (np.load(folder / "search" / "labels.npy") == last).all()


class Evil:
    """An object of a hostile pickle: loading it calls ``call(*arguments)``."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.made = (call, arguments)

    def __reduce__(self) -> Any:
        return self.made


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize("damage", ["call", "getattr", "cut", "labels", "short", "empty"])
def test_a_bad_cifar_batch_is_named_and_never_run(damage: str, tmp_path: Path) -> None:
    write_python(tmp_path)
    bad, owned = tmp_path / "data_batch_3", tmp_path / "owned"
    pixels, labels = batches()["data_batch_3"]
    match damage:
        case "call":
            bad.write_bytes(
                pickle.dumps({b"data": Evil(os.mkdir, str(owned)), b"labels": [1]}, protocol=2)
            )
        case "getattr":
            bad.write_bytes(b"cbuiltins\ngetattr\n(cnumpy\nndarray\nU\x05dumpstR.")
        case "cut":
            bad.write_bytes(bad.read_bytes()[:5000])
        case "labels":
            bad.write_bytes(as_published_pickle(pixels, labels + 200, "x"))
        case "short":
            bad.write_bytes(as_published_pickle(pixels[:7], labels[:7], "x"))
        case "empty":
            bad.write_bytes(as_published_pickle(pixels[:0], labels[:0], "x"))
    error = fails("lra/image", tmp_path, tmp_path / "data")
    assert "data_batch_3" in error.message
    assert not owned.exists()


# A petabyte of uint8, which no machine has: each call fails where it asks for the memory.
BOMBS = {
    "array": Evil(np.ndarray, (1 << 50,), "u1"),
    "array to be filled": Evil(np.zeros(0).__reduce__()[0], np.ndarray, (1 << 50,), b"B"),
}


@pytest.mark.usefixtures("small_cifar")
@pytest.mark.parametrize("name", BOMBS)
def test_a_cifar_batch_that_wants_too_much_memory_does_not_get_to_ask(
    name: str, tmp_path: Path
) -> None:
    write_python(tmp_path)
    content = pickle.dumps({b"data": BOMBS[name], b"labels": [1] * 20}, protocol=2)
    with pytest.raises(MemoryError):
        pickle.loads(content)
    (tmp_path / "data_batch_3").write_bytes(content)
    error = fails("lra/image", tmp_path, tmp_path / "data")
    assert "data_batch_3" in error.message
    assert "Memory" not in error.cause


def write_fashion(folder: Path, *, packed: bool = True) -> None:
    rng = np.random.default_rng(2)
    for name, rows in zip(fashion.FILES, fashion.ROWS, strict=True):
        if "images" in name:
            body = struct.pack(">4I", 0x803, rows, 28, 28) + rng.bytes(rows * 784)
        else:
            body = struct.pack(">2I", 0x801, rows) + bytes(n % 10 for n in range(rows))
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(body, mtime=0))
        else:
            (folder / name).write_bytes(body)


@pytest.fixture
def small_fashion(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.lra.image import data

    monkeypatch.setattr(fashion, "ROWS", (50, 50, 20, 20))
    monkeypatch.setattr(data, "TEST_ROWS", 20)


@pytest.mark.usefixtures("small_fashion")
def test_fashion_mnist_is_read_from_its_idx_files(tmp_path: Path) -> None:
    write_fashion(tmp_path)
    folder, manifest = prepare("lra/image-fashion", tmp_path, tmp_path / "data")
    assert manifest.rows == {"train": 45, "search": 5, "test": 20}
    image = np.load(folder / "train" / "tokens.npy")[0].reshape(32, 32)
    assert not image[:2].any()
    assert not image[:, -2:].any()
    assert image[2:-2, 2:-2].any()


@pytest.mark.usefixtures("small_fashion")
@pytest.mark.parametrize("damage", ["cut", "magic"])
def test_a_bad_file_of_fashion_mnist_is_named(damage: str, tmp_path: Path) -> None:
    write_fashion(tmp_path, packed=damage != "magic")
    bad = next(p for p in tmp_path.iterdir() if p.name.startswith("t10k-images"))
    content = bad.read_bytes()
    bad.write_bytes(content[:-40] if damage == "cut" else b"\x00\x00\x08\x01" + content[4:])
    error = fails("lra/image-fashion", tmp_path, tmp_path / "data")
    assert str(bad) in error.message


# ---------------------------------------------------------------- pathfinder: LRA's release


def write_pathfinder(folder: Path, side: int = 32, *, arrays: bool = False) -> Path:
    """Write 4 batches of 10 images; batch 10 shows whether they are ordered by number."""
    from PIL import Image

    home = folder / f"pathfinder{side}" / release.SET
    for batch in (0, 1, 2, 10):
        (home / "imgs" / str(batch)).mkdir(parents=True)
        (home / "metadata").mkdir(exist_ok=True)
        rows = []
        for n in range(10):
            pixels = np.full((side, side), 10 * batch + n, np.uint8)
            Image.fromarray(pixels).save(home / "imgs" / str(batch) / f"sample_{n}.png")
            more = "1.0 14 4 2 0.5 1 1"
            rows.append(f"imgs/{batch} sample_{n}.png {n} {n % 2} {more}".split())
        path = home / "metadata" / f"{batch}.npy"
        if arrays:
            np.save(path, np.array(rows))
        else:
            path.write_text("".join(" ".join(row) + "\n" for row in rows))
    return home


@pytest.mark.parametrize(("name", "side"), [("lra/pathfinder", 32), ("lra/pathx", 128)])
@pytest.mark.parametrize("arrays", [False, True])
def test_pathfinder_is_read_as_released_and_as_generated(
    name: str, side: int, arrays: bool, tmp_path: Path
) -> None:
    home = write_pathfinder(tmp_path / "lra_release" / "lra_release", side, arrays=arrays)
    (home / "imgs" / "0" / "sample_3.png").write_bytes(b"")  # as in the release
    folder, manifest = prepare(name, tmp_path, tmp_path / "data")
    assert manifest.rows == {"train": 31, "search": 4, "test": 4}
    assert manifest.parameters["empty_files"] == 1
    values = [10 * b + n for b in (0, 1, 2, 10) for n in range(10) if (b, n) != (0, 3)]
    found = [np.load(folder / s / "tokens.npy") for s in ("train", "search", "test")]
    assert [int(row[0]) for part in found for row in part] == values
    assert found[0].shape == (31, side * side)
    labels = [np.load(folder / s / "labels.npy") for s in ("train", "search", "test")]
    assert np.concatenate(labels).tolist() == [v % 10 % 2 for v in values]


@pytest.mark.parametrize("damage", ["png", "size", "label", "outside", "missing", "pickle"])
def test_a_bad_file_of_the_pathfinder_release_is_named(damage: str, tmp_path: Path) -> None:
    home = write_pathfinder(tmp_path)
    bad = home / "imgs" / "1" / "sample_4.png"
    meta = home / "metadata" / "1.npy"
    match damage:
        case "png":
            bad.write_bytes(bad.read_bytes()[:30])
        case "size":
            from PIL import Image

            Image.new("L", (64, 32)).save(bad)
        case "missing":
            bad.unlink()
        case "label":
            bad = meta
            meta.write_text(meta.read_text().replace("4 0 1.0", "4 yes 1.0"))
        case "outside":
            bad = home
            meta.write_text(meta.read_text().replace("imgs/1 sample_4.png", "../../../etc passwd"))
        case "pickle":
            bad = meta
            hostile = Evil(os.mkdir, str(tmp_path / "owned"))
            np.save(meta, np.array([hostile], dtype=object), allow_pickle=True)
    error = fails("lra/pathfinder", tmp_path, tmp_path / "data")
    assert str(bad) in error.message
    assert not (tmp_path / "owned").exists()


# ---------------------------------------------------------------- LRA's archive


def pack_release(root: Path, made: Path, *extra: str) -> Path:
    """Put what is in ``made`` where a download of the whole archive would lie."""
    (root / "downloads").mkdir(parents=True)
    archive = root / "downloads" / "lra_release.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(made, "lra_release/lra_release")
        for name in extra:
            entry = tarfile.TarInfo(name)
            entry.size = 4
            tar.addfile(entry, io.BytesIO(b"evil"))
    return archive


def test_the_archive_is_unpacked_once_and_only_what_is_wanted(tmp_path: Path) -> None:
    write_pairs(tmp_path / "made" / "tsv_data")
    write_pathfinder(tmp_path / "made")
    root = tmp_path / "data"
    archive = pack_release(root, tmp_path / "made", "lra_release/pathfinder128/broken")
    _, manifest = prepare("lra/retrieval", Path("lra"), root, length=32)
    assert manifest.rows == {"train": 30, "search": 30, "test": 30}
    unpacked = root / "downloads" / "lra_release"
    assert [p.name for p in unpacked.iterdir()] == ["tsv_data"]
    _, manifest = prepare("lra/pathfinder", Path("lra"), root)
    assert manifest.rows == {"train": 32, "search": 4, "test": 4}
    archive.unlink()  # unpacked data no longer need the archive
    prepare("lra/pathfinder", Path("lra"), root, seed=2)


def test_the_archive_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    write_pairs(tmp_path / "made" / "tsv_data")
    root = tmp_path / "data"
    pack_release(root, tmp_path / "made", "lra_release/lra_release/tsv_data/../../../../out.txt")
    with pytest.raises(ConfigError, match="outside its folders"):
        prepare("lra/retrieval", Path("lra"), root, length=32)
    assert not list(tmp_path.rglob("out.txt"))


def test_a_cut_archive_is_named_and_what_was_unpacked_is_not_used(tmp_path: Path) -> None:
    write_pairs(tmp_path / "made" / "tsv_data", count=2000)
    root = tmp_path / "data"
    archive = pack_release(root, tmp_path / "made")
    archive.write_bytes(archive.read_bytes()[:-400])
    with pytest.raises(ConfigError) as caught:
        prepare("lra/retrieval", Path("lra"), root, length=32)
    assert str(archive) in caught.value.message
    assert not (root / "downloads" / "lra_release" / "tsv_data").exists()


# ---------------------------------------------------------------- disk, kill


PREPARE = """
import resource, sys
import numpy as np
from pathlib import Path
from harness.base.errors import ConfigError
from tasks.spec import find_task
limit = int(sys.argv[2])
if limit:
    import signal
    # A module imported under the limit would leave a cut .pyc in the checkout, for every later
    # process to stumble over: Python 3.11 does not notice that less was written than it asked.
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
if sys.argv[3]:
    save = np.save
    def and_wait(path, array):
        save(path, array)
        print("written", flush=True)
        sys.stdin.read()
    np.save = and_wait
try:
    folder, _ = find_task("lra/text").prepare("test", Path(sys.argv[1]), lambda *_: None)
except ConfigError as error:
    print(error.message, error.cause, error.remedy)
    sys.exit(2)
print(folder)
"""


def start(root: Path, limit: int = 0, wait: str = "") -> "subprocess.Popen[str]":
    """Prepare data in a process; with ``wait`` it reports its first written file, and stops."""
    command = [sys.executable, "-c", PREPARE, str(root), str(limit), wait]
    here = Path(__file__).parents[2]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(here)},
    )  # fmt: skip


def leftovers(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir())


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with start(tmp_path, limit=10_000) as process:
        said = process.communicate(timeout=200)[0]
    assert process.returncode == 2, said
    assert "lra/text" in said
    assert "train/tokens.npy" in said
    assert "free some space" in said
    assert leftovers(tmp_path) == []


def test_a_kill_in_the_middle_leaves_nothing_that_is_taken_for_data(tmp_path: Path) -> None:
    with start(tmp_path, wait="yes") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.kill()
    assert list(tmp_path.glob(".lra-text-*.part/train/tokens.npy"))
    assert [n for n in leftovers(tmp_path) if not n.startswith(".")] == []
    folder, manifest = find_task("lra/text").prepare("test", tmp_path, lambda *_: None)
    assert manifest.rows["train"] == len(np.load(folder / "train" / "labels.npy"))
    assert leftovers(tmp_path) == [folder.name]


@pytest.mark.parametrize("name", ["lra/text", "lra/retrieval", "lra/image", "lra/pathfinder"])
def test_an_empty_folder_is_told_what_it_must_hold(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = fails(name, tmp_path / "empty", tmp_path / "data")
    assert str(tmp_path / "empty") in error.message
    assert "must hold" in error.remedy
    missing = fails(name, tmp_path / "nowhere", tmp_path / "data")
    assert str(tmp_path / "nowhere") in missing.message
