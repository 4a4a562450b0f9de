//! What a compiler's process may no longer do once it is confined. The test binary stands in for it: it starts itself
//! again for this one test, told by a variable what to try.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;

const ATTEMPT: &str = "RINGFENCE_TEST_ATTEMPT";
const WENT_THROUGH: i32 = 42;

/// In the child: confined, it tries this.
fn attempt(what: &str) {
    use std::io::Write as _;
    // A thread that was there before is bound as well.
    let (begun, begins) = std::sync::mpsc::channel();
    let (send, receive) = std::sync::mpsc::channel::<()>();
    let before = std::thread::spawn(move || {
        begun.send(()).unwrap();
        let _ = receive.recv();
        std::fs::read("/etc/hostname").is_ok()
    });
    begins.recv().unwrap();
    ringfence_runtime::confine_this_process().unwrap();
    match what {
        "nothing" => {}
        "memory" => {
            assert_eq!(vec![1_u8; 64 << 20].iter().map(|byte| u64::from(*byte)).sum::<u64>(), 64 << 20)
        }
        "answer" => std::io::stdout().write_all(b"said").unwrap(),
        "panic" => assert!(std::panic::catch_unwind(|| panic!("on purpose")).is_err()),
        "abort" => std::process::abort(),
        "read a file" => drop(std::fs::read("/etc/hostname")),
        "write a file" => drop(std::fs::write("/tmp/ringfence-test", "x")),
        "make a socket" => drop(std::net::UdpSocket::bind("127.0.0.1:0")),
        "connect" => drop(std::net::TcpStream::connect("127.0.0.1:1")),
        "start a program" => drop(Command::new("/bin/true").status()),
        "become a program" => drop(Command::new("/bin/true").exec()),
        "start a thread" => drop(std::thread::Builder::new().spawn(|| {})),
        "signal its host" => {
            let _ = rustix::process::kill_process(rustix::process::getppid().unwrap(), Signal::CONT);
        }
        "look for a process" => drop(rustix::process::getppid()),
        "trace" => drop(rustix::process::getpriority_process(None)),
        "raise its limits" => drop(rustix::process::getrlimit(rustix::process::Resource::Nofile)),
        "from another thread" => {
            drop(send);
            drop(before.join());
        }
        other => panic!("{other}?"),
    }
    std::process::exit(WENT_THROUGH);
}

fn tried(what: &str) -> ExitStatus {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "confine::a_confined_compiler_reaches_nothing", "--nocapture"])
        // As a compiler has it: a panic that writes its backtrace would read files.
        .env_clear()
        .env(ATTEMPT, what)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap()
}

#[test]
fn a_confined_compiler_reaches_nothing() {
    if let Ok(what) = std::env::var(ATTEMPT) {
        attempt(&what);
    }
    for what in ["nothing", "memory", "answer", "panic"] {
        assert_eq!(tried(what).code(), Some(WENT_THROUGH), "{what}");
    }
    assert_eq!(tried("abort").signal(), Some(Signal::ABORT.as_raw()));
    for what in [
        "read a file",
        "write a file",
        "make a socket",
        "connect",
        "start a program",
        "become a program",
        "start a thread",
        "signal its host",
        "look for a process",
        "trace",
        "raise its limits",
        "from another thread",
    ] {
        assert_eq!(tried(what).signal(), Some(Signal::SYS.as_raw()), "{what}");
    }
}
