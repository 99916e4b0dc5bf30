"""The numbered attacks, as they are against an interpreter without an operating system, such as the embedded sandbox.

Most find that there is nothing there.
"""

from __future__ import annotations

from researcher.testing.sandbox_conformance import Attack, attack


def _absent(code: str, never: str = "") -> Attack:
    """What it needs is not in the interpreter."""
    return attack(code, "error", never)


INTERPRETER_ATTACKS: dict[str, Attack] = {
    "01_endless_loop": attack("while True: pass", "timeout"),
    "01_endless_coroutine": attack(
        "import asyncio\nasync def f():\n  while True: await asyncio.sleep(0)\nasyncio.run(f())", "timeout error"
    ),
    "01_endless_hash": attack("class A:\n  def __hash__(self):\n    while True: pass\n{A(): 1}", "timeout"),
    "02_all_signals_ignored": _absent("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)"),
    "03_sigstop_to_itself": _absent("import os\nos.kill(os.getpid(), 19)"),
    "04_except_everything": attack(
        "while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout"
    ),
    "04_finally": attack("try:\n  1/0\nfinally:\n  while True: pass", "timeout"),
    "05_fork_bomb": _absent("import os\nwhile True: os.fork()"),
    "06_thread_bomb": _absent("import threading\nwhile True: threading.Thread(target=print).start()"),
    "07_memory_bomb": attack("x = []\nwhile True: x.append('a' * 1000000)", "oom"),
    "07_one_allocation": attack("x = 'a' * 2 ** 62", "oom error"),
    "07_power": attack("x = pow(3, 10 ** 8)", "oom timeout"),
    "07_padding": attack("print('{:>1000000000}'.format(1))", "oom timeout error"),
    "08_processes": _absent("import multiprocessing\nmultiprocessing.Process(target=print).start()"),
    "09_full_tmpfs": _absent("open('/tmp/x', 'w').write('x' * 1000)"),
    "10_full_tmp": _absent("from pathlib import Path\nPath('/tmp/x').write_text('x')"),
    "11_full_dev_shm": _absent("open('/dev/shm/x', 'w').write('x')"),
    "12_inodes": _absent("from pathlib import Path\nPath('/tmp/a').touch()"),
    "13_deep_directories": _absent("import os\nos.mkdir('/tmp/deep')"),
    "14_chmod_0_directory": _absent("import os\nos.mkdir('/tmp/a')\nos.chmod('/tmp/a', 0)"),
    "15_symlink": _absent("import os\nos.symlink('/etc/passwd', '/tmp/out')"),
    "16_endless_output": attack("while True: print('x' * 100000)", "output_limit"),
    "16_huge_error": attack("raise ValueError('x' * 24_000_000)", "killed error oom"),
    "16_huge_call": attack("from pathlib import Path\nPath('/x').write_text('x' * 30_000_000)", "killed error oom"),
    "16_huge_lines_of_a_traceback": attack(
        f"def f(n): return (1/0 if n == 0 else f(n - 1), '{'x' * 65_000}')\nf(490)", "killed error oom"
    ),
    "17_tiny_lines": attack("while True: print()", "output_limit"),
    "18_odd_characters": attack("print('\\ud800 \\x00 \\x1b[31m \\u202e \\u2028')", "ok error"),
    "20_frames_on_every_fd": _absent("import os\nfor fd in range(256): os.write(fd, b'\\x00\\x00\\x00\\x02{}')"),
    "20_open_by_number": _absent("for fd in range(256): open(fd, 'w').write('x')"),
    "21_memory_of_pid_1": _absent("print(open('/proc/1/mem').read())"),
    "21_environment_of_itself": _absent("print(open('/proc/self/environ').read())", "RESEARCHER"),
    "22_ptrace": _absent("import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)"),
    "23_signals_to_pid_1": _absent("import os\nfor n in range(1, 65): os.kill(1, n)"),
    "24_kill_everything": _absent("import os\nos.kill(-1, 9)"),
    "25_daemon": _absent("import subprocess\nsubprocess.Popen(['sleep', '600'])"),
    "26_exit_at_once": _absent("import os\nos._exit(3)"),
    "26_system_exit": _absent("raise SystemExit(3)"),
    "26_segmentation_fault": _absent("import ctypes\nctypes.string_at(0)"),
    "26_exec": _absent("import os\nos.execv('/bin/sh', ['sh'])"),
    "26_closed_fds": _absent("import os\nos.closerange(0, 256)"),
    "27_shared_memory": _absent("from multiprocessing import shared_memory\nshared_memory.SharedMemory('x', True, 10)"),
    "28_tcp": _absent("import socket\nsocket.create_connection(('127.0.0.1', 9))"),
    "28_dns": _absent("import socket\nprint(socket.getaddrinfo('localhost', 80))"),
    "28_http": _absent("import urllib.request\nurllib.request.urlopen('http://169.254.169.254/')"),
    "29_raw_sockets": _absent("import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "30_docker_socket": _absent("import os\nprint(os.listdir('/var/run'))"),
    "30_mounts": _absent("print(open('/proc/mounts').read())", "proc"),
    "30_secrets": _absent("import os\nprint(os.environ)", "hunter2"),
    "31_writes_elsewhere": _absent("open('/etc/passwd', 'a').write('x')"),
    "31_relative_path": _absent("open('../../../../etc/hostname').read()"),
    "32_su": _absent("import pty\npty.spawn('su')"),
    "33_unshare": _absent("import os\nos.unshare(0x10000000)"),
    "34_core_pattern": _absent("open('/proc/sys/kernel/core_pattern', 'w').write('|/bin/sh')"),
    "34_oom_score": _absent("open('/proc/self/oom_score_adj', 'w').write('-1000')"),
    "37_ten_megabytes_of_source": attack("x = 1\n" * 1_700_000, "error"),
    "37_nesting": attack("x = " + "(" * 60_000, "error"),
    "37_nesting_in_exec": attack("exec('x = ' + '(' * 100000)", "error"),
    "37_nested_value": attack("x = []\nfor i in range(1000000): x = [x]\nprint(len(repr(x)))", "error timeout oom"),
    "40_dunder_walk": _absent("print(().__class__.__base__.__subclasses__())"),
    "40_dunder_by_getattr": _absent("print(getattr((), '__cla' + 'ss__'))"),
    "40_dunder_by_format": _absent("print('{0.__class__.__base__}'.format(()))"),
    "40_frames_of_an_error": _absent(
        "try:\n  1/0\nexcept Exception as error:\n  print(error.__traceback__.tb_frame.f_globals)"
    ),
    "40_import_by_name": _absent("print(__import__('os').environ)"),
    "40_import_builtins": _absent("import builtins\nbuiltins.print = None"),
    "40_import_importlib": _absent("import importlib\nimportlib.import_module('os')"),
    "40_modules_table": _absent("import sys\nprint(sys.modules)"),
    "40_pickle": _absent("import pickle\npickle.loads(b'cos\\nsystem\\n(S\"id\"\\ntR.')"),
    "40_suspension_flood": _absent("while True:\n  try: no_such_name\n  except NameError: pass"),
    "40_suspension_flood_by_open": _absent("while True:\n  try: open('/x')\n  except Exception: pass"),
    "40_sleep_flood": attack("import time\nwhile True: time.sleep(10 ** 9)", "timeout error"),
    "40_sleep_flood_of_coroutines": attack(
        "import asyncio\nasync def f():\n  await asyncio.gather(*[asyncio.sleep(10 ** 6) for _ in range(10000)])\n"
        "asyncio.run(f())",
        "ok error timeout oom",
    ),
}
"""By number and name. Not here: 19, 27, 35, 36 and 39, which take more than a script and are tests of their own; and
38, a supervisor's forged reply, where there is no supervisor of ours."""
