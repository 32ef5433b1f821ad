"""docs/install.md played through in a folder: what needs root, pip or systemd is a stand-in, the rest is as it stands there.

The stand-in of systemctl starts what the unit that was copied says, so page, unit and configuration must fit one another.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.blocks import ROOT, Block, blocks
from tests.docs.session import Scene, Session

STAND_INS = {
    # without the owner, which only root may give away
    "install": 'args=(); while [ $# -gt 0 ]; do case "$1" in -o|-g) shift 2;; *) args+=("$1"); shift;; esac; done\n'
    'exec /usr/bin/install "${args[@]}"',
    "useradd": 'echo "useradd $*"',
    "systemctl": 'echo "systemctl $*"\n[ "$1" = enable ] || exit 0\n'
    "start=$(sed -n 's/^ExecStart=//p' \"$UNITS/$3.service\")\n"
    'nohup ${start//\\/opt\\/relay/$OPT} >"$LOG" 2>&1 &\n echo $! >"$LOG.pid"',
    "program/bin/pip": "exit 0",
}


def test_the_page_installs_a_service_that_runs(tmp_path: Path) -> None:
    """From the folder of the source to `live and ready`."""
    (block, *_) = [one for one in blocks(ROOT / "docs" / "install.md") if one.language == "sh"]
    bin_, opt, etc = tmp_path / "bin", tmp_path / "program", tmp_path / "etc"
    for name, text in STAND_INS.items():
        place = (tmp_path if "/" in name else bin_) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"#!/bin/bash\n{text}\n")
        place.chmod(0o755)
    (opt / "bin" / "relay").symlink_to(Path(sys.executable).parent / "relay")
    (etc / "systemd" / "system").mkdir(parents=True)
    session = Session(
        tmp_path,
        Scene(
            before="relay simulator --dir sim > simulator.json 2>simulator.log &\n"
            f'export PATH="{bin_}:$PATH" UNITS="{etc}/systemd/system" OPT="{opt}" LOG="{tmp_path}/log"\n'
            "trap 'kill $(cat \"$LOG.pid\") $(jobs -p) 2>/dev/null || true; wait' EXIT\n",
            env={"RELAY_SPOOL_URL": f"sqlite:///{tmp_path}/spool.db"},
            replace={
                "python3 -m venv /opt/relay": ":",
                "/opt/relay": str(opt),
                "/usr/local/bin": str(bin_),
                "relay setup": "relay setup --yes --no-check --simulator simulator.json --listen 127.0.0.1:2525",
                "/etc/systemd/system/": f"{etc}/systemd/system/",
                "/etc/relay": f"{etc}/relay",
                "cp systemd/relay.service": f"sed 's#/etc/relay#{etc}/relay#' {ROOT}/systemd/relay.service >",
            },
        ),
    )
    (etc / "systemd" / "system" / "relay.service").touch()
    session.run([Block(block.page, block.line, "sh", "run", _to_file(block.text))])
    said = session.outputs[0]
    assert "systemctl daemon-reload" in said
    assert "systemctl enable --now relay" in said
    assert "live and ready" in said
    assert (etc / "relay").stat().st_mode & 0o777 == 0o750
    assert (etc / "relay" / "client-secret").stat().st_mode & 0o777 == 0o600


def _to_file(text: str) -> str:
    """The unit is copied to a folder; our copy is written to a file in it."""
    return text.replace("/etc/systemd/system/\n", "/etc/systemd/system/relay.service\n")
