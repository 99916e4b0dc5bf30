"""Attacks on what runs a sandbox for whole processes: its kernel, its supervisor, its files, its neighbours.

For backends whose scripts are real CPython on Linux, in a container or a virtual machine; run them as those of
`sandbox_conformance`, with `run_attack`. A script that tries several things prints those that it could do.
"""

from __future__ import annotations

from researcher.testing.sandbox_conformance import Attack, attack

_TRIES = """
import ctypes, errno, os, signal, socket, subprocess, sys
done = []
def attempt(name, act):
    try:
        if act() is not False:
            done.append(name)
    except (OSError, subprocess.SubprocessError, ValueError, AttributeError):
        pass
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    return libc.syscall(number, *arguments) >= 0
"""
_TOLD = "\nprint('done:', done)\n"


def _tries(code: str) -> Attack:
    """A script that may do nothing of what it tries."""
    return Attack(_TRIES + code + _TOLD, frozenset({"ok"}), only="done: []\n")


def _fill(folder: str) -> Attack:
    code = (
        f"n = 0\ntry:\n    with open('{folder}/big', 'wb', buffering=0) as file:\n"
        "        while n < 600: n += file.write(bytes(2**20)) // 2**20\n"
        "except OSError as error:\n    print('full', error.errno)\n"
        "print('all of it' if n >= 600 else 'stopped')"
    )
    return attack(code, "ok oom killed error", never="all of it")


FORGED = 'import json, struct\nbody = json.dumps({"nonce": "0" * 32, "status": "ok", "stdout": "forged"}).encode()\n'

CONTAINER_ATTACKS: dict[str, Attack] = {
    "01_endless_loop": attack("while True: pass", "timeout"),
    "02_all_signals_ignored": attack(
        "import signal\nfor n in signal.valid_signals():\n  try: signal.signal(n, signal.SIG_IGN)\n"
        "  except (OSError, ValueError): pass\nprint('deaf')\nwhile True: pass",
        "timeout",
    ),
    "03_stops_itself": attack("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timeout"),
    "04_catches_everything": attack(
        "def go():\n  while True:\n    try:\n      while True: pass\n    except BaseException: pass\n"
        "    finally:\n      go()\ngo()",
        "timeout error",
    ),
    "05_fork_bomb": attack("import os\nwhile True:\n  try: os.fork()\n  except OSError: pass", "timeout oom killed"),
    "05_fork_bomb_of_a_shell": attack(":(){ :|:& };: ; sleep 9", "timeout error ok oom killed", language="bash"),
    "06_thread_bomb": attack(
        "import threading, time\nwhile True:\n  try: threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "  except RuntimeError: pass",
        "timeout oom killed error",
    ),
    "07_memory_bomb": attack("x = []\nwhile True: x.append(bytearray(10**6))", "oom"),
    "07_memory_bomb_at_once": attack("x = bytearray(10**11)", "oom"),
    "08_thirty_processes_of_20_mb": attack(
        "import os, time\nready = []\nfor i in range(30):\n  r, w = os.pipe()\n  pid = os.fork()\n  if pid == 0:\n"
        "    x = bytearray(20 * 2**20)\n    for at in range(0, len(x), 4096): x[at] = 1\n"
        "    os.write(w, b'x')\n    time.sleep(60)\n    os._exit(0)\n  os.close(w)\n  os.read(r, 1)\n"
        "  ready.append(pid)\nalive = sum(os.waitpid(pid, os.WNOHANG)[0] == 0 for pid in ready)\n"
        "print('all thirty' if alive == 30 else 'fewer')",
        "ok oom killed error timeout",
        never="all thirty",
    ),
    "09_full_tmpfs_and_memory": attack(
        "import os\nfor folder in ('.', '/tmp', '/dev/shm'):\n  try:\n    with open(folder + '/big', 'wb', buffering=0)"
        " as file:\n      while True: file.write(bytes(2**20))\n  except OSError: pass\n"
        "x = []\nwhile True: x.append(bytearray(10**6))",
        "oom killed timeout",
    ),
    "10_scratch_full": _fill("."),
    "10_tmp_full": _fill("/tmp"),
    "11_shm_full": _fill("/dev/shm"),
    "12_inodes_gone": attack(
        "import os\nfor folder in ('.', '/tmp', '/dev/shm'):\n  n = 0\n  try:\n    while n < 100000:\n"
        "      os.close(os.open(f'{folder}/{n}', os.O_CREAT | os.O_WRONLY))\n      n += 1\n"
        "  except OSError: pass\n  if n == 100000: print('no end')\nprint('stopped')",
        "ok timeout",
        never="no end",
    ),
    "13_deep_directories": attack(
        "import os\nfor i in range(4095):\n  try:\n    os.mkdir('d')\n    os.chdir('d')\n  except OSError: break\n"
        "print(i)",
        "ok",
    ),
    "14_directory_without_permissions": attack(
        "import os\nos.makedirs('a/b/c')\nopen('a/b/c/file', 'w').close()\nfor name in ('a/b/c', 'a/b', 'a'):\n"
        "  os.chmod(name, 0)\nos.chmod('.', 0)",
        "ok error",
    ),
    "16_a_gigabyte_of_output": attack(
        "import os\nblock = b'x' * 2**20\nfor i in range(1024): os.write(1, block)", "output_limit"
    ),
    "17_many_tiny_lines": attack("import os\nwhile True: os.write(1, b'\\n')", "output_limit timeout"),
    "18_bytes_that_are_no_text": attack(
        "import os\nos.write(1, b'\\xff\\xfe\\x00\\x1b[31m\\xed\\xa0\\x80\\xf0\\x9f')\nprint('\\ud800')", "ok"
    ),
    "20_frames_on_every_descriptor": attack(
        FORGED + "import os\nframe = struct.pack('>I', len(body)) + body\n"
        "for fd in range(256):\n  if fd in (1, 2): continue\n  for data in (frame, b'\\1\\0\\0\\0' + frame):\n"
        "    try: os.write(fd, data)\n    except OSError: pass\n"
        "for fd in range(64):\n  try: os.write(os.open(f'/proc/1/fd/{fd}', 1), frame)\n  except OSError: pass",
        "ok error",
        never="forged",
    ),
    "21_files_of_pid_1": _tries(
        "for name in ('mem', 'environ', 'maps', 'auxv', 'stack', 'syscall'):\n"
        "    attempt(name, lambda: open('/proc/1/' + name, 'rb').read(1))\n"
        "attempt('fd', lambda: os.listdir('/proc/1/fd'))\nattempt('root', lambda: os.listdir('/proc/1/root'))\n"
        "for fd in range(16):\n    attempt(f'fd {fd}', lambda: os.open(f'/proc/1/fd/{fd}', os.O_RDWR))"
    ),
    "22_ptrace_of_pid_1": _tries(
        "for request in (16, 0x4206):\n    attempt('ptrace', lambda: libc.ptrace(request, 1, None, None) == 0)\n"
        "attempt('process_vm_readv', lambda: call(310, 1, None, 0, None, 0, 0))\n"
    ),
    "23_every_signal_to_pid_1": _tries(
        "for number in signal.valid_signals():\n    attempt(int(number), lambda: os.kill(1, number))"
    ),
    "24_kill_everything": attack("import os\nos.kill(-1, 9)\nprint('still here')", "killed ok error"),
    "25_daemon_that_holds_the_output": attack(
        "import os, signal, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n    time.sleep(600)\n  os._exit(0)\nos.wait()\n"
        "print('left')",
        "ok",
    ),
    "26_leaves_by_exit": attack("import os\nprint('x', flush=True)\nos._exit(3)", "error"),
    "26_leaves_by_segfault": attack("import ctypes\nctypes.string_at(0)", "killed"),
    "26_becomes_another_program": attack("import os\nos.execv('/bin/true', ['true'])", "ok error"),
    "26_closes_everything": attack("import os\nos.closerange(0, 4096)\nwhile True: pass", "timeout"),
    "28_network": _tries(
        "def reach(family, kind, address):\n"
        "    with socket.socket(family, kind) as s:\n"
        "        s.settimeout(0.3)\n        s.connect(address)\n        s.send(b'x')\n"
        "for address in (('1.1.1.1', 443), ('169.254.169.254', 80), ('172.17.0.1', 2375), ('10.0.0.1', 80)):\n"
        "    attempt(address[0], lambda: reach(socket.AF_INET, socket.SOCK_STREAM, address))\n"
        "    attempt(address[0] + ' udp', lambda: reach(socket.AF_INET, socket.SOCK_DGRAM, address))\n"
        "attempt('ipv6', lambda: reach(socket.AF_INET6, socket.SOCK_STREAM, ('2606:4700:4700::1111', 443)))\n"
        "attempt('dns', lambda: socket.getaddrinfo('example.com', 80))"
    ),
    "29_odd_sockets": _tries(
        "kinds = {'raw': (2, 3), 'packet': (17, 3), 'netlink': (16, 3), 'vsock': (40, 1), 'alg': (38, 5),"
        " 'tipc': (30, 1), 'bluetooth': (31, 3), 'can': (29, 3), 'xdp': (44, 3), 'key': (15, 3)}\n"
        "for name, (family, kind) in kinds.items():\n    attempt(name, lambda: socket.socket(family, kind).close())"
    ),
    "30_host_secrets": _tries(
        "for name in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/secrets',"
        " '/etc/shadow', '/root', '/host', '/var/lib/docker'):\n"
        "    attempt(name, lambda: open(name) if not os.path.isdir(name) else bool(os.listdir(name)))\n"
        "attempt('environment', lambda: any('SECRET' in each or 'KEY' in each for each in os.environ))\n"
        "for each in os.listdir('/dev'):\n"
        "    if each.startswith(('sd', 'vd', 'nvme', 'kvm', 'fuse', 'mem', 'kmsg')):\n"
        "        attempt(each, lambda: os.open('/dev/' + each, os.O_RDONLY))"
    ),
    "31_writes_outside": _tries(
        "for folder in ('/', '/etc', '/usr', '/usr/lib/python3', '/var', '/var/tmp', '/run', '/dev', '/opt/researcher',"
        " '/home', '/root', '/sys', '/proc', '/dev/mqueue'):\n"
        "    attempt(folder, lambda: os.open(folder + '/x', os.O_CREAT | os.O_WRONLY))\n"
        "attempt('remount', lambda: libc.mount(b'none', b'/', b'', 0x1020, None) == 0)"
    ),
    "32_another_user": _tries(
        "for user in (0, 1, 1000):\n    attempt(f'setuid {user}', lambda: os.setuid(user))\n"
        "    attempt(f'setgid {user}', lambda: os.setgid(user))\n"
        "attempt('setgroups', lambda: os.setgroups([0]))\n"
        "attempt('su', lambda: b'uid=0' in subprocess.run(['su', '-c', 'id'], capture_output=True, timeout=2,"
        " stdin=subprocess.DEVNULL).stdout)\n"
        "attempt('capabilities', lambda: [line for line in open('/proc/self/status') if line.startswith(('CapEff',"
        " 'CapPrm', 'CapInh', 'CapAmb')) and int(line.split()[1], 16)] != [])"
    ),
    "33_kernel_doors": _tries(
        "numbers = {'mount': (165, b'none', b'/tmp', b'tmpfs', 0, None), 'unshare user': (272, 0x10000000),"
        " 'unshare all': (272, 0x7e020000), 'bpf': (321, 0, ctypes.create_string_buffer(128), 72),"
        " 'keyctl': (250, 0, -3, 0), 'add_key': (248, b'user', b'x', b'x', 1, -2), 'userfaultfd': (323, 1),"
        " 'io_uring': (425, 4, ctypes.create_string_buffer(120)), 'chroot': (161, b'/'),"
        " 'pivot_root': (155, b'/', b'/'), 'setns': (308, 0, 0), 'init_module': (175, None, 0, b''),"
        " 'kexec': (246, 0, 0, None, 0), 'reboot': (169, 0),"
        " 'perf': (298, ctypes.create_string_buffer(128), 0, -1, -1, 0), 'swapon': (167, b'/x', 0),"
        " 'open_by_handle_at': (304, 0, None, 0), 'memfd': (319, b'x', 0), 'quotactl': (179, 0, None, 0, None),"
        " 'fsopen': (430, b'tmpfs', 0), 'open_tree': (428, -100, b'/', 1), 'acct': (163, None)}\n"
        "for name, arguments in numbers.items():\n    attempt(name, lambda: call(*arguments))"
    ),
    "34_kernel_settings": _tries(
        "for name, text in (('/proc/sys/kernel/core_pattern', '|/bin/x'), ('/proc/sysrq-trigger', 'h'),"
        " ('/proc/sys/vm/overcommit_memory', '1'), ('/proc/self/oom_score_adj', '-1000'),"
        " ('/sys/kernel/uevent_helper', '/x'), ('/proc/1/oom_score_adj', '1000'),"
        " ('/sys/fs/cgroup/memory/memory.limit_in_bytes', '-1'), ('/sys/fs/cgroup/pids/pids.max', 'max')):\n"
        "    def write(name=name, text=text):\n"
        "        with open(name, 'w') as file:\n            file.write(text)\n"
        "    attempt(f'{name} {text}', write)"
    ),
    "34_memory_bomb_that_is_no_likelier_victim": attack(
        "import os\nwith open('/proc/self/oom_score_adj', 'w') as file: file.write('0')\nx = []\n"
        "for i in range(20): os.fork()\nwhile True: x.append(bytearray(10**6))",
        "oom killed timeout error",
    ),
    "37_a_hundred_thousand_brackets": attack("x = " + "(" * 100_000 + ")" * 100_000, "error oom"),
    "37_a_hundred_thousand_blocks": attack(
        "\n".join(" " * depth + "if 1:" for depth in range(300)) + "\n" + " " * 300 + "pass", "error"
    ),
    "37_ten_megabytes_of_source": attack("x = 1\n" * 1_700_000, "error"),
}  # fmt: skip
"""One script each; the number is that of the list in the sandbox's design note."""

LEAVES = """
import ctypes, os
global_name = "secret"
open("file", "w").write("secret")
open("/tmp/file", "w").write("secret")
open("/dev/shm/file", "w").write("secret")
os.makedirs(os.path.expanduser("~/.config"), exist_ok=True)
open(os.path.expanduser("~/.config/sitecustomize.py"), "w").write("secret")
libc = ctypes.CDLL(None)
libc.shmget(4711, 4096, 0o1666)
libc.semget(4711, 1, 0o1666)
libc.msgget(4711, 0o1666)
librt = ctypes.CDLL("librt.so.1")
librt.mq_open(b"/secret", os.O_CREAT | os.O_RDWR, 0o666, None)
import math
math.pi = 3
print("left")
"""
"""A script that leaves what it can for the next."""

FINDS = (
    _TRIES
    + """
import math
attempt("global", lambda: "global_name" in globals() or False)
for folder in (".", "/tmp", "/dev/shm"):
    attempt(folder, lambda: bool(os.listdir(folder)))
attempt("shm", lambda: libc.shmget(4711, 4096, 0o666) >= 0)
attempt("sem", lambda: libc.semget(4711, 1, 0o666) >= 0)
attempt("msg", lambda: libc.msgget(4711, 0o666) >= 0)
attempt("mq", lambda: ctypes.CDLL("librt.so.1").mq_open(b"/secret", os.O_RDWR) >= 0)
attempt("mqueue", lambda: bool(os.listdir("/dev/mqueue")))
attempt("module", lambda: math.pi == 3)
attempt("new file", lambda: open("new", "w").close())
"""
    + _TOLD
)
"""A script that looks for it."""

PROCESSES = """
import os
print(sorted(int(each) for each in os.listdir("/proc") if each.isdigit() and int(each) != os.getpid()))
"""
"""A script that prints the processes it sees besides itself."""
