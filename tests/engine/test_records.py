"""The record of a run, undisturbed and resumed."""

import csv
import errno
import json
from pathlib import Path

import pytest
import torch

from stillhouse.engine import records
from stillhouse.engine.records import LINES, Records, read_records
from stillhouse.errors import UserError


def write(record: Records, steps: range) -> None:
    for step in steps:
        record.write("train", step, step // 4 + 1, {"loss": 1 / step, "kd": step * 0.1})
        if step % 2 == 0:
            record.write("evaluate", step, step // 4 + 1, {"accuracy": step / 10})


def test_lines_are_json_and_seen_at_once(tmp_path):
    record = Records(tmp_path)
    record.write("train", 1, 1, {"loss": torch.tensor(0.5), "nan": float("nan"), "n": 3})

    def no_constant(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "metrics.jsonl").read_text()  # before it is closed
    assert json.loads(text, parse_constant=no_constant) == {
        "kind": "train", "step": 1, "epoch": 1, "loss": 0.5, "nan": None, "n": 3.0,
    }  # fmt: skip
    record.close()
    assert read_records(tmp_path)[0]["nan"] is None


def test_the_table_has_every_column_in_order_of_appearance(tmp_path):
    with Records(tmp_path) as record:
        record.write("train", 1, 1, {"loss": 0.5})
        record.write("evaluate", 1, 1, {"accuracy": 0.25, "a, b": float("inf")})
        record.write("train", 2, 1, {"loss": 0.1, "kd": 2.0})
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["kind", "step", "epoch", "loss", "accuracy", "a, b", "kd"],
        ["train", "1", "1", "0.5", "", "", ""],
        ["evaluate", "1", "1", "", "0.25", "", ""],
        ["train", "2", "1", "0.1", "", "", "2.0"],
    ]


def test_an_empty_record_has_a_table(tmp_path):
    Records(tmp_path).close()
    assert (tmp_path / "metrics.csv").read_text() == "kind,step,epoch\n"
    assert read_records(tmp_path) == []


def test_a_resumed_record_is_an_undisturbed_one(tmp_path):
    for name in ("straight", "resumed"):
        (tmp_path / name).mkdir()
    with Records(tmp_path / "straight") as record:
        write(record, range(1, 9))

    killed = Records(tmp_path / "resumed")
    write(killed, range(1, 7))  # the checkpoint is of step 4; two more steps are lost
    with open(tmp_path / "resumed" / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 7, "epo')
    with Records(tmp_path / "resumed") as record:
        record.truncate(4)
        write(record, range(5, 9))

    for name in ("metrics.jsonl", "metrics.csv"):
        assert (tmp_path / "straight" / name).read_bytes() == (
            tmp_path / "resumed" / name
        ).read_bytes()


def test_a_torn_last_line_is_left_out_and_not_glued_to_the_next(tmp_path):
    with Records(tmp_path) as record:
        write(record, range(1, 3))
    path = tmp_path / "metrics.jsonl"
    whole = read_records(tmp_path)
    for torn in (b'{"kind": "tr', b"{", '{"kind": "é'.encode()[:-1], b'{"kind"'):
        path.write_bytes(path.read_bytes() + torn)
        assert read_records(tmp_path) == whole
        with Records(tmp_path) as record:
            record.write("train", 9, 1, {})
        whole = [*whole, {"kind": "train", "step": 9, "epoch": 1}]
        assert read_records(tmp_path) == whole


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1, "epoch": 1}')
    assert len(read_records(tmp_path)) == 1
    with Records(tmp_path) as record:
        record.write("train", 2, 1, {})
    assert [line["step"] for line in read_records(tmp_path)] == [1, 2]


@pytest.mark.parametrize("line", ["oops", "[1]", '{"step": 1}', '{"kind": "train", "st'])
def test_another_bad_line_is_said_with_its_number(tmp_path, line):
    good = '{"kind": "train", "step": 1, "epoch": 1}'
    (tmp_path / "metrics.jsonl").write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_records(tmp_path)


def test_a_missing_record(tmp_path):
    with pytest.raises(UserError, match="metrics.jsonl does not exist"):
        read_records(tmp_path)


def test_names_of_its_own_and_a_closed_record(tmp_path):
    record = Records(tmp_path)
    with pytest.raises(ValueError, match="the name 'step' of a value is reserved"):
        record.write("train", 1, 1, {"step": 2.0})
    record.close()
    record.close()
    with pytest.raises(ValueError, match="closed"):
        record.write("train", 1, 1, {})


def test_a_full_disk(tmp_path, monkeypatch):
    record = Records(tmp_path)

    class Full:
        def write(self, text: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None:
            pass

    monkeypatch.setattr(record, "_file", Full())
    with pytest.raises(UserError, match="No space left on device; the last checkpoint is kept"):
        record.write("train", 1, 1, {"loss": 1.0})


def test_events(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Records(tmp_path, tensorboard=True) as record:
        write(record, range(1, 7))
    with Records(tmp_path, tensorboard=True) as record:
        record.truncate(4)
        write(record, range(5, 9))
    events = accumulator.EventAccumulator(str(tmp_path / records.EVENTS))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 9))
    assert events.Scalars("evaluate/accuracy")[-1].value == pytest.approx(0.8)


def test_without_tensorboard_there_are_no_events_and_no_complaint(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with Records(tmp_path, tensorboard=True) as record:
        write(record, range(1, 3))
    assert not (tmp_path / records.EVENTS).exists() and len(read_records(tmp_path)) == 3


@pytest.mark.parametrize(
    "line",
    [
        '{"kind": "train", "step": "1", "epoch": 0}',
        '{"kind": "train", "step": 1, "epoch": null}',
        '{"kind": ["train"], "step": 1, "epoch": 0}',
        '{"kind": "train", "step": 1, "epoch": 0, "loss": "low"}',
        '{"kind": "train", "step": 1, "epoch": 0, "loss": [1]}',
        '{"kind": "train", "step": 1%s, "epoch": 0}' % ("0" * 400),
        "[" * 100_000,
    ],
)
def test_a_line_of_other_types_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / LINES).write_text(f'{{"kind": "train", "step": 1, "epoch": 0}}\n{line}\n')
    with pytest.raises(UserError, match="line 2: not a line of metrics"):
        read_records(tmp_path)


def test_records_of_another_folder_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "foreign").write_text("secret")
    (tmp_path / "run" / LINES).symlink_to(tmp_path / "foreign")
    with pytest.raises(UserError, match="leads out of"):
        read_records(tmp_path / "run")
