//! What a compiler's process may still ask of the system once it has its input: memory, its two pipes, the time, its
//! end. Anything else kills it. So even who takes over the compiler by a bug in it reads no file, reaches no network and
//! starts no program; what is left to them is the answer.

use std::sync::OnceLock;

/// Whether this system takes such a filter, found out by setting one that permits everything on a thread that then
/// ends. Where it is so, every compiler's process has to confine itself or fail; where it is not (another system or
/// processor, a container that forbids it), that is logged once and they run without.
pub(crate) fn is_possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| match filter::probe() {
        Ok(()) => true,
        Err(reason) => {
            tracing::warn!(
                %reason,
                "this system takes no seccomp filter: compilers run with their limits, but without one"
            );
            false
        }
    })
}

/// From here on this process is killed by whatever it asks of the system that a compiler does not need. Holds for all of
/// its threads.
///
/// # Errors
/// The system does not take the filter.
#[doc(hidden)]
pub fn confine_this_process() -> Result<(), String> {
    filter::set()
}

#[cfg(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))]
mod filter {
    use std::collections::BTreeMap;

    use seccompiler::{
        BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
        SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch,
    };

    /// What the allocator, the standard library and the end of a process need.
    const FREE: &[libc::c_long] = &[
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_writev,
        libc::SYS_close,
        libc::SYS_brk,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_getcpu,
        libc::SYS_clock_gettime,
        libc::SYS_clock_nanosleep,
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// `prctl` with it does nothing but name a piece of memory.
    const PR_SET_VMA: u64 = 0x5356_4d41;

    /// Memory, but none that can be run: a compiler writes its code down and does not try it.
    const NOT_EXECUTABLE: &[libc::c_long] = &[libc::SYS_mmap, libc::SYS_mprotect];

    pub(super) fn set() -> Result<(), String> {
        let program = compiler().map_err(|error| error.to_string())?;
        seccompiler::apply_filter_all_threads(&program).map_err(|error| error.to_string())
    }

    pub(super) fn probe() -> Result<(), String> {
        let program = program(BTreeMap::new(), SeccompAction::Allow, SeccompAction::KillProcess);
        let program = program.map_err(|error| error.to_string())?;
        let set = std::thread::Builder::new().spawn(move || seccompiler::apply_filter(&program));
        let set = set.map_err(|error| error.to_string())?.join();
        set.map_err(|_| "its thread ended early".to_owned())?.map_err(|error| error.to_string())
    }

    fn compiler() -> Result<BpfProgram, BackendError> {
        let mut rules: BTreeMap<i64, Vec<Rule>> = FREE.iter().map(|number| (*number, Vec::new())).collect();
        let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
        for number in NOT_EXECUTABLE {
            let not_executable = Condition::new(2, Length::Dword, Compare::MaskedEq(executable), 0)?;
            rules.insert(*number, vec![Rule::new(vec![not_executable])?]);
        }
        // A panic that cannot unwind signals its own process, and no other.
        let itself = Condition::new(0, Length::Dword, Compare::Eq, std::process::id().into())?;
        rules.insert(libc::SYS_tgkill, vec![Rule::new(vec![itself])?]);
        // The allocator gives what it takes a name.
        let name_memory = Condition::new(0, Length::Dword, Compare::Eq, PR_SET_VMA)?;
        rules.insert(libc::SYS_prctl, vec![Rule::new(vec![name_memory])?]);
        program(rules, SeccompAction::KillProcess, SeccompAction::Allow)
    }

    fn program(
        rules: BTreeMap<i64, Vec<Rule>>,
        mismatch: SeccompAction,
        matched: SeccompAction,
    ) -> Result<BpfProgram, BackendError> {
        let architecture =
            if cfg!(target_arch = "x86_64") { TargetArch::x86_64 } else { TargetArch::aarch64 };
        SeccompFilter::new(rules, mismatch, matched, architecture)?.try_into()
    }
}

#[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod filter {
    pub(super) fn set() -> Result<(), String> {
        Err("there is none for this system or processor".to_owned())
    }

    pub(super) fn probe() -> Result<(), String> {
        set()
    }
}
