//! Landlock: which files may be opened, and on kernels that know it, that no TCP port may be bound, nor connected to but those named.
//!
//! Invariant: the file rules are enforced or it is an error; what only newer kernels know (network, abstract UNIX sockets, signals to
//! others) is added where it can be, since [`super::seccomp`] refuses the calls anyway.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::{Folders, LockError};

/// The newest rules asked for; older kernels enforce those they know.
const NEWEST: ABI = ABI::V6;

/// Restricts this thread and those it will start: files outside `folders`, and TCP ports other than `ports`.
pub fn engage(folders: &Folders, ports: &[u16]) -> Result<(), LockError> {
    let enforced = restrict(folders, ports).map_err(|error| LockError::Landlock(error.to_string()))?;
    match enforced {
        RulesetStatus::NotEnforced => Err(LockError::NoLandlock),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// Whether the kernel knows Landlock: a thread of its own is restricted, which ends with it.
pub fn is_there() -> bool {
    let tried = std::thread::spawn(|| engage(&Folders::default(), &[])).join();
    matches!(tried, Ok(Ok(())))
}

fn restrict(folders: &Folders, ports: &[u16]) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let write = read
        | AccessFs::WriteFile
        | AccessFs::Truncate
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    for (paths, access) in [(&folders.read, read), (&folders.write, write)] {
        for path in paths {
            let Ok(opened) = PathFd::new(path) else { continue };
            let access: BitFlags<AccessFs> = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
            ruleset = ruleset.add_rule(PathBeneath::new(opened, access))?;
        }
    }
    for port in ports {
        ruleset = ruleset.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    Ok(ruleset.restrict_self()?.ruleset)
}
