"""`create_dummy_dataset.py` and `create_mimic_ecg_inputs.py`: chat files from dataset rows and embeddings.

In: arguments. Out: a chat file, and an exit status: 0 written, 1 nothing written, 2 refused at the start.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from ecgfounder.chat.forms import conversation, embedding_chat, question_for
from ecgfounder.chat.rows import ChatRow
from ecgfounder.chat.settings import ChatSettings
from ecgfounder.chat.write import write_chat
from ecgfounder.commands.arguments import add_storage_argument
from ecgfounder.commands.terminal import (
    LineFormatter,
    Parser,
    as_command,
    as_flags,
    check_temporary_folder,
    check_working_folder,
    print_error,
)
from ecgfounder.errors import ECGFounderError, RunError, SettingsError
from ecgfounder.storage import path_here, storage_options

logger = logging.getLogger("ecgfounder.chat")


def parse_columns(words: Sequence[str]) -> tuple[str, ...]:
    """Column names from the command line: a JSON list in one word, or names separated by spaces or commas."""
    joined = " ".join(words).strip()
    if joined.startswith("["):
        names = _json(joined, "--text_cols and --target_cols")
        if not all(isinstance(name, str) for name in names):
            raise SettingsError(f"--text_cols and --target_cols take names of columns, got {joined}")
        return tuple(names)
    return tuple(name.strip() for word in words for name in word.split(",") if name.strip())


def parse_mapping(text: str, flag: str) -> dict[str, str]:
    """A JSON object with text values from the command line, e.g. '{"ecg_paths": "m1"}'.

    Raises
    ------
    SettingsError
        If the text is anything else.
    """
    mapping = _json(text, flag)
    if not isinstance(mapping, dict) or not all(isinstance(value, str) and value for value in mapping.values()):
        raise SettingsError(f'{flag} takes a JSON object of texts such as \'{{"ecg_paths": "..."}}\', got {text[:200]}')
    return mapping


def _json(text: str, flag: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f'{flag} is not valid JSON ({error}), got {text[:200]}; quote it as in \'{{"a": "b"}}\''
        ) from error


def _parser(program: str, description: str) -> argparse.ArgumentParser:
    parser = Parser(prog=program, description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--dataset_name", required=True, help="save_to_disk folder, table file, or name on the Hugging Face Hub")
    add("--split", default="train", help="split of a DatasetDict or Hub dataset (default: train)")
    add("--text_cols", nargs="*", default=[], metavar="COLUMN", help="columns of the user's text, also as a JSON list")
    add("--target_cols", nargs="+", metavar="COLUMN", help="columns of the assistant's text, also as a JSON list")
    add(
        "--modality_mapping",
        default='{"ecg_paths": "m1"}',
        metavar="JSON",
        help="column -> modality (default: %(default)s)",
    )
    add(
        "--embeddings_dirs", required=True, metavar="JSON", help="column -> folder of embeddings; or one folder for all"
    )
    add("--output_file", required=True, help="file to write; replaced if it exists")
    add("--num_workers", type=int, default=4, help="threads that look for embedding files (default: 4)")
    add("--max_samples", type=int, help="read only this many rows from the start")
    add("--data_dir", default=".", help="as given when the embeddings were written (default: working directory)")
    add("--layout", choices=("flat", "tree"), default="flat", help="as given when the embeddings were written")
    add("--id_column", help="as given when the embeddings were written")
    add("--keep_missing", action="store_true", help="keep rows whose embeddings are missing, with their expected paths")
    add(
        "--exclude_flags",
        nargs="+",
        default=[],
        metavar="FLAG",
        help="leave out rows with a recording that has one of these quality flags, e.g. calibration_pulse",
    )
    add_storage_argument(parser)
    add("--log_level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    return parser


def _settings(arguments: argparse.Namespace) -> ChatSettings:
    mapping = parse_mapping(arguments.modality_mapping, "--modality_mapping")
    folders = arguments.embeddings_dirs
    by_column = folders.lstrip().startswith("{")
    return ChatSettings(
        dataset_name=arguments.dataset_name,
        split=arguments.split,
        text_cols=parse_columns(arguments.text_cols),
        target_cols=None if arguments.target_cols is None else parse_columns(arguments.target_cols),
        modality_mapping=mapping,
        embeddings_dirs=parse_mapping(folders, "--embeddings_dirs") if by_column else dict.fromkeys(mapping, folders),
        output_file=path_here(arguments.output_file, "output_file"),
        output_format="json" if arguments.output_format == "openai" else arguments.output_format,
        data_dir=arguments.data_dir,
        layout=arguments.layout,
        id_column=arguments.id_column,
        num_workers=arguments.num_workers,
        max_samples=arguments.max_samples,
        keep_missing=arguments.keep_missing,
        exclude_flags=tuple(arguments.exclude_flags),
        storage_options=storage_options(arguments.storage_options),
    )


def _run(arguments: argparse.Namespace, program: str, form: Callable[[ChatRow], Any]) -> int:
    """Write the file and log the counts of rows; returns 0 if written, 1 if nothing was written, 2 if refused at the start."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(LineFormatter("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[lines])
    logger.setLevel(arguments.log_level)
    try:
        check_working_folder()
        check_temporary_folder()
        summary = write_chat(_settings(arguments), form)
    except ECGFounderError as error:
        print_error(f"{program}: error", error)
        return 1 if isinstance(error, RunError) else 2
    for line in summary.lines():
        logger.info(as_flags(line))
    return 0


def dummy_main(argv: Sequence[str] | None = None) -> int:
    """`create_dummy_dataset.py`: rows to conversations in the OpenAI style; returns the exit status."""
    return as_command(lambda: _dummy(argv))


def _dummy(argv: Sequence[str] | None) -> int:
    program = "create_dummy_dataset.py"
    parser = _parser(program, "Write dataset rows as OpenAI-style conversations that refer to ECG embeddings.")
    parser.add_argument("--output_format", choices=("json", "jsonl", "openai"), default="json", help="openai is json")
    parser.add_argument(
        "--messages_key",
        metavar="NAME",
        help="the key of a conversation; '' writes the list alone (default: messages in JSONL, '' in JSON)",
    )
    arguments = parser.parse_args(argv)
    if arguments.target_cols is None:
        parser.error("the following arguments are required: --target_cols")
    key = arguments.messages_key
    if key is None:
        key = "messages" if arguments.output_format == "jsonl" else ""
    return _run(arguments, program, functools.partial(_conversation, key=key))


def _conversation(sample: ChatRow, key: str) -> Any:
    return {key: conversation(sample)} if key else conversation(sample)


def mimic_main(argv: Sequence[str] | None = None) -> int:
    """`create_mimic_ecg_inputs.py`: rows to the embedding-chat style; returns the exit status."""
    return as_command(lambda: _mimic(argv))


def _mimic(argv: Sequence[str] | None) -> int:
    program = "create_mimic_ecg_inputs.py"
    parser = _parser(
        program, "Write dataset rows as embedding-chat samples: messages, and the ECG embeddings beside them."
    )
    parser.add_argument("--output_format", choices=("json", "jsonl"), default="json")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument("--include_prompts", action="store_true", default=True, help="end with a question (default)")
    prompts.add_argument("--no_include_prompts", dest="include_prompts", action="store_false", help="leave it out")
    parser.add_argument("--seed", type=int, default=0, help="seed for choosing a row's question (default: 0)")
    arguments = parser.parse_args(argv)

    def form(sample: ChatRow) -> dict[str, Any]:
        return embedding_chat(sample, question_for(sample, arguments.seed) if arguments.include_prompts else None)

    return _run(arguments, program, form)
