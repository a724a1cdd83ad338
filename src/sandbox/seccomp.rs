//! seccomp: system calls that no thread may make once the process serves.
//!
//! Invariants
//! - Refused calls answer EPERM; a program for another architecture is ended by the kernel.
//! - The list names what opens a way out or a way in: sockets, their addresses, passing of descriptors, other programs, other processes'
//!   memory, and kernel interfaces that have no business in a service. Accepting on listeners that are open already stays possible.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    apply_filter_all_threads,
};

use super::LockError;

/// Whose process is locked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The service's, which needs no socket but those it has.
    Service,
    /// The relay's, which connects and never listens.
    Relay,
}

impl Whose {
    /// Calls that it alone has no use for.
    const fn refused(self) -> &'static [libc::c_long] {
        match self {
            Self::Service => &[libc::SYS_socket, libc::SYS_connect],
            Self::Relay => &[libc::SYS_accept4],
        }
    }
}

/// Kinds of sockets that the relay may make: UNIX, IPv4, IPv6 (address_families(7)).
const RELAY_FAMILIES: [u64; 3] = [libc::AF_UNIX as u64, libc::AF_INET as u64, libc::AF_INET6 as u64];

/// Refused to both, whatever the arguments.
const REFUSED: &[libc::c_long] = &[
    // new ways in
    libc::SYS_socketpair,
    libc::SYS_bind,
    libc::SYS_listen,
    // messages may carry addresses and descriptors behind pointers, where a filter cannot look; nothing here needs them
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmsg,
    libc::SYS_recvmmsg,
    // calls made by the kernel in the process's name, past any filter
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // other programs
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_memfd_create,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // the kernel and its namespaces
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_personality,
];

/// `sendto` writes to a connected socket when its address (fifth argument, counted from 0: 4) is null; with one it is a way out.
const ADDRESS_OF_SENDTO: u8 = 4;

/// On x86-64 the same calls exist a second time, with this bit set (the x32 ABI).
#[cfg(target_arch = "x86_64")]
const TWINS: &[i64] = &[0, 0x4000_0000];
#[cfg(not(target_arch = "x86_64"))]
const TWINS: &[i64] = &[0];
/// Numbers that the x32 ABI has for itself (`execve`, `ptrace`, `sendmsg` and others among them): none is needed.
#[cfg(target_arch = "x86_64")]
const X32_ALONE: std::ops::RangeInclusive<i64> = 512..=547;

/// Locks every thread of this process (`SECCOMP_FILTER_FLAG_TSYNC`); sets `no_new_privs`.
pub fn engage(whose: Whose) -> Result<(), LockError> {
    let program = program(whose).map_err(|error| LockError::Seccomp(error.to_string()))?;
    apply_filter_all_threads(&program).map_err(|error| LockError::Seccomp(error.to_string()))
}

fn program(whose: Whose) -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    #[cfg(target_arch = "x86_64")]
    rules.extend(X32_ALONE.map(|call| (call | 0x4000_0000, Vec::new())));
    for twin in TWINS {
        rules.extend(REFUSED.iter().chain(whose.refused()).map(|call| (call | twin, Vec::new())));
        let addressed = SeccompCondition::new(ADDRESS_OF_SENDTO, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
        rules.insert(libc::SYS_sendto | twin, vec![SeccompRule::new(vec![addressed])?]);
        if whose == Whose::Relay {
            // Refused if it is none of them: conditions of one rule hold together.
            let other = |family: u64| SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family);
            let others = RELAY_FAMILIES.into_iter().map(other).collect::<Result<_, _>>()?;
            rules.insert(libc::SYS_socket | twin, vec![SeccompRule::new(others)?]);
        }
    }
    let refusal = u32::try_from(libc::EPERM).expect("EPERM is 1");
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(refusal), TargetArch::try_from(ARCH)?)?.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_made_for_this_machine_and_fits_the_kernels_limit() {
        for whose in [Whose::Service, Whose::Relay] {
            let program = program(whose).unwrap();
            assert!(program.len() < 4096, "{} instructions", program.len());
        }
    }

    #[test]
    fn no_call_is_named_twice() {
        for whose in [Whose::Service, Whose::Relay] {
            let names: std::collections::BTreeSet<_> = REFUSED.iter().chain(whose.refused()).collect();
            assert_eq!(names.len(), REFUSED.len() + whose.refused().len());
        }
    }
}
