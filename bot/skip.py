"""Say which files of a change the student does not read, and why: generated, vendored, locked, ignored."""

import re

from bot.diff import Change, FileDiff
from bot.policy import Policy, matching_glob

_LOCK_FILES = (
    "package-lock.json npm-shrinkwrap.json yarn.lock pnpm-lock.yaml bun.lock bun.lockb deno.lock Cargo.lock "
    "poetry.lock uv.lock pdm.lock pylock.toml Pipfile.lock conda-lock.yml go.sum go.work.sum Gemfile.lock "
    "composer.lock flake.lock gradle.lockfile buildscript-gradle.lockfile packages.lock.json paket.lock "
    "Podfile.lock Package.resolved Cartfile.resolved mix.lock rebar.lock pubspec.lock MODULE.bazel.lock "
    "Chart.lock .terraform.lock.hcl cabal.project.freeze stack.yaml.lock renv.lock"
)
_VENDORED = (
    "vendor/ third_party/ third-party/ node_modules/ bower_components/ jspm_packages/ Godeps/ Pods/ Carthage/ "
    "site-packages/ .venv/ venv/ .yarn/releases/ .yarn/plugins/ .yarn/cache/"
)
_GENERATED = (
    "*.pb.go *.pb.gw.go *.pb.cc *.pb.h *.pb.swift *.pb.dart *.pbjson.dart *_pb2.py *_pb2.pyi *_pb2_grpc.py "
    "*_pb.js *_pb.ts *_pb.d.ts *_grpc_pb.js *_pb.rb zz_generated.*.go *_generated.go *.generated.go "
    "*.generated.ts *.generated.cs *.g.dart *.freezed.dart *.g.cs *.designer.cs *.Designer.cs "
    "*.min.js *.min.css *.min.mjs *.js.map *.css.map *.mjs.map *.bundle.js *.snap *.tsbuildinfo "
    "__generated__/ __snapshots__/ dist/ .next/ .nuxt/ bazel-out/ swagger-ui-bundle.js"
)
_ASSETS = (
    "*.svg *.png *.jpg *.jpeg *.gif *.webp *.avif *.ico *.bmp *.tif *.tiff *.eps *.pdf *.ai *.psd "
    "*.ttf *.otf *.woff *.woff2 *.eot *.bdf *.afm *.mp3 *.mp4 *.wav *.webm *.obj *.stl "
    "*.csv *.tsv *.parquet *.jsonl *.ndjson *.geojson *.topojson"
)
_RULES = (
    ("lock file", tuple(_LOCK_FILES.split())),
    ("vendored code", tuple(_VENDORED.split())),
    ("generated file", tuple(_GENERATED.split())),
    ("image, font or data file", tuple(_ASSETS.split())),
)

_HEAD = 20  # a marker counts only in the first lines of the file, as the generators write it
_MARKER = re.compile(
    r"\bcode generated\b.*\bdo not edit\b|(?<![\w@])@(?:partially-)?generated\b|<auto-?generated\b"
    r"|\b(?:auto-?generated|automatically generated|generated (?:by|from|file))\b.*\bdo not (?:edit|modify)\b",
    re.IGNORECASE,
)


def reason_to_skip(file: FileDiff, policy: Policy) -> str | None:
    """Give the words that say why this file is not read, or None for a file to be read.

    The policy's `include` wins back everything that has lines to comment: not what cannot be read, and not
    deleted files.
    """
    if file.unreadable or file.change is Change.DELETED:
        return file.unreadable or "deleted file"
    if matching_glob(policy.include, file.path):
        return None
    if glob := matching_glob(policy.ignore, file.path):
        return f"ignored by the policy: {glob}"
    return _built_in_reason(file)


def _built_in_reason(file: FileDiff) -> str | None:
    for kind, globs in _RULES:
        if glob := matching_glob(globs, file.path):
            return f"{kind} ({glob})"
    line = _marked_line(file)
    return f"generated file (says line {line})" if line else None


def _marked_line(file: FileDiff) -> int | None:
    lines = file.new_lines
    head = (number for number in range(1, _HEAD + 1) if number in lines)
    return next((number for number in head if _MARKER.search(lines[number].text[:300])), None)
