import os
import socket

import pytest

from edge_agent.facts import gather_facts, os_family, parse_cpu_model, parse_os_release
from edge_agent.users import own_name

DEBIAN = """PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
VERSION="12 (bookworm)"
VERSION_CODENAME=bookworm
ID=debian
HOME_URL="https://www.debian.org/"
"""
UBUNTU = """PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
ID=ubuntu
ID_LIKE=debian
"""
CENTOS = """NAME="CentOS Linux"
VERSION="7 (Core)"
ID="centos"
ID_LIKE="rhel fedora"
VERSION_ID="7"
PRETTY_NAME="CentOS Linux 7 (Core)"

CENTOS_MANTISBT_PROJECT="CentOS-7"
"""
ROCKY = """NAME="Rocky Linux"
VERSION="9.4 (Blue Onyx)"
ID="rocky"
ID_LIKE="rhel centos fedora"
VERSION_ID="9.4"
"""
KYLIN = """NAME="Kylin Linux Advanced Server"
VERSION="V10 (Lance)"
ID="kylin"
VERSION_ID="V10"
PRETTY_NAME="Kylin Linux Advanced Server V10 (Lance)"
ANSI_COLOR="0;31"
"""
KYLIN_DESKTOP = """NAME="Kylin"
VERSION="银河麒麟桌面操作系统V10 (SP1)"
ID=kylin
ID_LIKE=debian
VERSION_ID="v10"
"""
OPENEULER = """NAME="openEuler"
VERSION="22.03 (LTS-SP3)"
ID="openEuler"
VERSION_ID="22.03"
"""
ALPINE = """NAME="Alpine Linux"
ID=alpine
VERSION_ID=3.20.3
PRETTY_NAME="Alpine Linux v3.20"
"""


@pytest.mark.parametrize(
    ("text", "os_id", "version", "family"),
    [
        (DEBIAN, "debian", "12", "debian"),
        (UBUNTU, "ubuntu", "24.04", "debian"),
        (CENTOS, "centos", "7", "rhel"),
        (ROCKY, "rocky", "9.4", "rhel"),
        (KYLIN, "kylin", "V10", "rhel"),
        (KYLIN_DESKTOP, "kylin", "v10", "debian"),
        (OPENEULER, "openEuler", "22.03", "rhel"),
        (ALPINE, "alpine", "3.20.3", "alpine"),
    ],
)
def test_os_release_tells_the_systems_apart(
    text: str, os_id: str, version: str, family: str
) -> None:
    release = parse_os_release(text)
    assert release["ID"] == os_id
    assert release["VERSION_ID"] == version
    assert os_family(release["ID"], release.get("ID_LIKE", "")) == family


def test_a_derivative_belongs_to_its_nearest_known_relative() -> None:
    assert os_family("pop", "ubuntu debian") == "debian"
    assert os_family("opensuse-leap", "suse opensuse") == "suse"
    assert os_family("endeavouros", "arch") == "arch"
    assert os_family("nixos") == "other"
    assert os_family("") == "other"


def test_malformed_lines_of_os_release_are_left_out() -> None:
    assert parse_os_release('ID=debian\nnonsense\n# A=1\nB=\'open\n\nC="a b"') == {
        "ID": "debian",
        "C": "a b",
    }


def test_the_cpu_model_is_found_on_every_architecture() -> None:
    assert parse_cpu_model("processor\t: 0\nmodel name\t: AMD EPYC\n") == "AMD EPYC"
    assert parse_cpu_model("processor : 0\nHardware : BCM2835\nModel : Pi 4\n") == "Pi 4"
    assert parse_cpu_model("") == ""


def test_the_facts_of_this_node_are_those_the_system_gives() -> None:
    facts = gather_facts(agent_version="1.2.3", verbs=["exec"])
    assert facts.hostname == socket.gethostname()
    assert facts.kernel == os.uname().release
    assert facts.cpus == os.cpu_count()
    assert facts.memory_bytes > 0
    assert facts.boot_id
    assert facts.agent_version == "1.2.3"
    assert facts.agent_user == own_name()
    assert facts.verbs == ["exec"]
