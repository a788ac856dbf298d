//! Giving up rights: resource limits everywhere, a filter of system calls on Linux.

use capstan_model::vat::VatLimits;
use rustix::process::{Resource, Rlimit, setrlimit};
use thiserror::Error;

/// Address space beyond what the vat's own limits allow: the program, stacks, the allocator's reserves.
const OVERHEAD_BYTES: u64 = 1 << 30;

/// A right could not be given up.
#[derive(Debug, Error)]
#[error("cannot confine the vat's process: {0}")]
pub struct ConfineError(String);

/// Gives up, for all threads of this process and for good, whatever a vat's engine does not need.
///
/// No file can be opened or written, no core dumped, and memory is bounded by the vat's own limits. On Linux
/// every system call outside a short list fails with `EPERM`: only the three standard streams can be read and written, no
/// path, socket, process, thread or signal can be had, and no memory can be made executable. Elsewhere only the limits
/// hold. Threads must exist before.
pub fn confine(limits: &VatLimits) -> Result<(), ConfineError> {
    // The rows of the store lie beside the heap, and twice while a reply is written out.
    let rows = limits.store_bytes_max.saturating_mul(2);
    let memory = limits.memory_bytes_max.saturating_add(rows).saturating_add(OVERHEAD_BYTES);
    let bounds = [(Resource::As, memory), (Resource::Core, 0), (Resource::Fsize, 0), (Resource::Nofile, 0)];
    for (resource, bound) in bounds {
        let limit = Rlimit { current: Some(bound), maximum: Some(bound) };
        setrlimit(resource, limit).map_err(|error| ConfineError(format!("{resource:?}: {error}")))?;
    }
    filter()
}

#[cfg(not(target_os = "linux"))]
fn filter() -> Result<(), ConfineError> {
    Ok(())
}

#[cfg(target_os = "linux")]
fn filter() -> Result<(), ConfineError> {
    let failed = |error: &dyn std::fmt::Display| ConfineError(error.to_string());
    let arch = std::env::consts::ARCH.try_into().map_err(|error| failed(&error))?;
    let program = linux::program(arch).map_err(|error| failed(&error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| failed(&error))
}

#[cfg(target_os = "linux")]
mod linux {
    use libc::{MAP_ANONYMOUS, PROT_EXEC, c_long};
    use seccompiler::{
        BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
        SeccompFilter, SeccompRule, TargetArch,
    };

    /// Waiting, time, chance, giving memory back, ending.
    const ALLOWED: [c_long; 27] = [
        libc::SYS_close,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_membarrier,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_set_robust_list,
        libc::SYS_rseq,
        libc::SYS_gettid,
        libc::SYS_getpid,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_clock_gettime,
        libc::SYS_clock_getres,
        libc::SYS_gettimeofday,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_getrandom,
        libc::SYS_ppoll,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ];

    /// One argument of a call: its position, counted from zero, and what of it must be how.
    fn only(position: u8, how: SeccompCmpOp, value: u64) -> Result<SeccompCondition, BackendError> {
        SeccompCondition::new(position, SeccompCmpArgLen::Dword, how, value)
    }

    /// The filter; every other call fails with `EPERM`.
    pub(super) fn program(arch: TargetArch) -> Result<BpfProgram, BackendError> {
        let (anonymous, exec) =
            (u64::from(MAP_ANONYMOUS.unsigned_abs()), u64::from(PROT_EXEC.unsigned_abs()));
        let of_stream = |number| SeccompRule::new(vec![only(0, SeccompCmpOp::Eq, number)?]);
        let no_code = || only(2, SeccompCmpOp::MaskedEq(exec), 0);
        let no_file = || only(3, SeccompCmpOp::MaskedEq(anonymous), anonymous);
        let mut rules: std::collections::BTreeMap<i64, Vec<SeccompRule>> =
            ALLOWED.into_iter().map(|call| (call, Vec::new())).collect();
        // Whatever else whoever started the parent has left open stays out of reach.
        for call in [libc::SYS_read, libc::SYS_readv] {
            rules.insert(call, vec![of_stream(0)?]);
        }
        for call in [libc::SYS_write, libc::SYS_writev] {
            rules.insert(call, vec![of_stream(1)?, of_stream(2)?]);
        }
        rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![no_code()?, no_file()?])?]);
        rules.insert(libc::SYS_mprotect, vec![SeccompRule::new(vec![no_code()?])?]);
        let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        SeccompFilter::new(rules, denied, SeccompAction::Allow, arch)?.try_into()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::process::Command;
    use std::{env, fs, net, thread};

    const INSIDE: &str = "CAPSTAN_TEST_CONFINED";

    /// Runs in a process of its own, which is confined for good.
    #[test]
    fn inside() {
        if env::var_os(INSIDE).is_none() {
            return;
        }
        let mut open = fs::File::open("/etc/passwd").unwrap();
        let started = thread::spawn(|| thread::sleep(std::time::Duration::from_millis(50)));
        confine(&VatLimits::default()).unwrap();
        let denied = |kind: ErrorKind| kind == ErrorKind::PermissionDenied;
        let mut got = Vec::new();
        let mut refuse = |what: &'static str, refused: bool| {
            if !refused {
                got.push(what);
            }
        };
        refuse("a file", fs::File::open("/etc/passwd").is_err_and(|error| denied(error.kind())));
        refuse("an open file", open.read(&mut [0; 8]).is_err_and(|error| denied(error.kind())));
        refuse(
            "a new file",
            fs::write("/tmp/capstan-confined", "x").is_err_and(|error| denied(error.kind())),
        );
        refuse("a directory", fs::read_dir("/").is_err_and(|error| denied(error.kind())));
        refuse("metadata", fs::metadata("/").is_err_and(|error| denied(error.kind())));
        refuse("a socket", net::TcpListener::bind("127.0.0.1:0").is_err_and(|error| denied(error.kind())));
        refuse("a datagram", net::UdpSocket::bind("127.0.0.1:0").is_err_and(|error| denied(error.kind())));
        refuse("a process", Command::new("/bin/true").spawn().is_err());
        refuse("a thread", thread::Builder::new().spawn(|| ()).is_err());
        refuse(
            "a signal",
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::URG).is_err(),
        );
        refuse(
            "a right again",
            confine(&VatLimits { store_bytes_max: 1 << 40, ..VatLimits::default() }).is_err(),
        );
        // What it keeps: the threads it has, memory, its pipes.
        started.join().unwrap();
        let memory = vec![1_u8; 16 << 20];
        let line = format!("confined: {got:?} {}\n", memory.len());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }

    #[test]
    fn a_confined_process_has_its_pipes_and_nothing_else() {
        let this = env::current_exe().unwrap();
        let arguments = ["--exact", "confine::tests::inside", "--nocapture"];
        let ended = Command::new(this).args(arguments).env(INSIDE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(said.contains("confined: [] 16777216"), "{said} {}", ended.status);
    }
}
