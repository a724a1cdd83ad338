//! The command line: one declaration from which parsing, help, man page and completions follow.
//!
//! Doc comments here are help texts; the first line is the short one.

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::cli::exit;
use crate::config::{document, relay};

/// A memory for AI agents that a hospital owns outright: one binary, one encrypted file, no way out
///
/// Settings come from the environment (RM_*), see rosemary serve --help and docs/configuration.md.
#[derive(Parser, Debug)]
#[command(name = "rosemary", version, verbatim_doc_comment, after_help = AFTER_HELP, after_long_help = after_long_help())]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const AFTER_HELP: &str = "Try it: rosemary demo\nExit codes and examples: rosemary --help";

const DEMO_EXAMPLES: &str = "Examples:
  rosemary demo
  rosemary demo --dir /tmp/try --port 9443
  rosemary demo --reset";

const VERIFY_EXAMPLES: &str = "Examples:
  rosemary verify
  rosemary verify --log log.ndjson --key 'rosemary/…+…+…'       (the key: rosemary doctor)";

const INCIDENT_EXAMPLES: &str = "Example, after a key was lost:
  rosemary incident revoke-all && rosemary incident freeze
  rosemary incident report notice.md          what happened in the last 72 hours
  rosemary incident rotate && rosemary incident thaw
  rosemary key make --label 'ward 3'          new keys for those who need them";

const UNLOCK_EXAMPLES: &str = "Examples:
  rosemary unlock                             asks for the passphrase
  rosemary unlock --key-file /media/usb/kek
  rosemary unlock --shares                    asks for one share after the other";

const ROTATE_ALL_EXAMPLES: &str = "Examples:
  rosemary keys rotate all
  rosemary keys rotate all --key-file /etc/rosemary/kek.2 --make --wipe-old && echo 'now set RM_KEK_FILE'";

const RESTORE_EXAMPLES: &str = "Examples:
  rosemary restore /mnt/backup/rosemary/rosemary-20261124T020000Z-1b4e28ba.backup
  rosemary restore FILE --discard-newer       give up what was written after the backup was taken
  rosemary restore FILE --to /srv/look.db     aside; nothing that exists is touched";

const ERASE_EXAMPLES: &str = "Examples:
  rosemary erase user nurse@hospital.example --receipt nurse.receipt
  rosemary erase subject 'MRN 4711'
  rosemary erase verify-receipt nurse.receipt --key 'rosemary/…+…+…'      (the key: rosemary doctor)
While the service runs: POST /api/v1/erasures.";

const BACKUP_EXAMPLES: &str = "Examples:
  rosemary backup make                        into RM_BACKUP_DIR
  rosemary backup make /mnt/usb/today.backup
  rosemary backup verify FILE";

const INIT_EXAMPLE: &str = "Example:
  umask 077; head -c 32 /dev/urandom > /etc/rosemary/kek
  export RM_DB_PATH=/var/lib/rosemary/rosemary.db RM_TENANT_ID=ward-3
  export RM_OWNER_EMAIL=owner@hospital.example RM_KEK_FILE=/etc/rosemary/kek
  rosemary init

Lose the key and the data is lost: keep a copy of it away from the data.";

fn after_long_help() -> String {
    format!(
        "Examples:\n  \
         rosemary demo                           try it out, with invented data, in a folder of its own\n  \
         rosemary init && rosemary serve         a new data file, then the service\n  \
         rosemary key make --label 'ward 3'      a key for a person or a program, shown once\n  \
         rosemary export - | gzip > copy.gz      every memory as NDJSON, in clear: guard the copy\n  \
         rosemary doctor --json                  the posture, for a monitor\n\n{}",
        exit::help()
    )
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Starts a ready-made instance with invented clinical memories and prints curl lines that work
    ///
    /// Makes a folder with its own key, self-signed certificate, owner and agent keys (shown once);
    /// a second run continues where the first stopped. Reads no RM_* settings. Not for real records.
    #[command(verbatim_doc_comment, after_help = DEMO_EXAMPLES)]
    Demo(Demo),

    /// Makes the encrypted data file, and a self-signed certificate unless RM_TLS_CERT names one
    ///
    /// Needs RM_DB_PATH, RM_TENANT_ID, RM_OWNER_EMAIL and a key (RM_KEK_FILE, RM_KEK_PASSPHRASE_FILE
    /// or the systemd credential rosemary.kek). Refuses to touch a data file that is already there.
    #[command(verbatim_doc_comment, after_help = INIT_EXAMPLE)]
    Init(Init),

    /// Runs the service until SIGTERM or SIGINT
    #[command(after_long_help = document::help())]
    Serve,

    /// Unlocks a service that started locked (RM_SEALED_START=on), from a terminal of the same machine
    ///
    /// Asks for the passphrase without showing it, or takes a key file. Tried too often with wrong keys, the service makes one wait.
    #[command(verbatim_doc_comment, after_help = UNLOCK_EXAMPLES)]
    Unlock(Unlock),

    /// Checks the whole data file: every block, tables, indexes, and the audit log against its tree
    ///
    /// The service must be stopped. Changes nothing. Exit code 1 when something is wrong.
    /// With --log it checks an exported log instead, against nothing but the log's public key: no settings, no data file.
    #[command(verbatim_doc_comment, after_help = VERIFY_EXAMPLES)]
    Verify(Verify),

    /// Reports what protects this instance: on, off, weak, and not yet built, each with its remedy
    ///
    /// Exit code 1 when something should be put right.
    Doctor(Doctor),

    /// Tells how the instance stands: log, anchor, space, backups, drills, keys, erasures, certificate
    ///
    /// Asks the running service at its console (RM_CONSOLE_SOCKET); reads the data file when none runs, and changes nothing.
    /// Exit code 1 when something asks for attention; the last lines name it.
    #[command(verbatim_doc_comment, after_help = "Examples:\n  rosemary status\n  rosemary status --json | jq .backup.last")]
    Status(Status),

    /// Makes, lists and verifies backups: each one encrypted file, consistent with one commit
    #[command(subcommand, arg_required_else_help = true)]
    Backup(Backup),

    /// Makes a data file from a backup, in its place or aside
    ///
    /// Every row, index and audit entry is checked before the file takes its place; until then nothing has changed, and an interrupted
    /// run is simply run again. The file that was there is kept beside under another name. The old audit log is kept read-only, and a new
    /// one begins that names it. The service must be stopped.
    #[command(verbatim_doc_comment, after_help = RESTORE_EXAMPLES)]
    Restore(Restore),

    /// Makes, lists and revokes keys of users
    #[command(subcommand, arg_required_else_help = true)]
    Key(Key),

    /// What unlocks the data file, and rotation of the keys inside it
    ///
    /// Epoch, holders' keys, the log's signing key and the TLS pair are renewed while the service runs, too; for the rest it must be stopped. Every change is an
    /// entry of the audit log.
    #[command(subcommand, arg_required_else_help = true, verbatim_doc_comment)]
    Keys(Keys),

    /// Runs the relay: the one process that connects to other machines, to those that its settings list
    ///
    /// Its settings are its own (/etc/rosemary-relay/relay.env in the package): RM_EGRESS_ALLOW and its neighbours in
    /// docs/configuration.md. It connects to the service and takes orders from it. Runs until it is ended.
    #[command(verbatim_doc_comment)]
    Relay,

    /// Where the relay may go: the list, what the kernel lets through, and a test of each destination
    #[command(subcommand, arg_required_else_help = true)]
    Egress(Egress),

    /// Erases a person, or somebody memories are about, by the death of their key; and the receipts of it
    ///
    /// The memories go, then the key that opens them, then the key of the epoch that wrapped it, while everybody else's key is wrapped anew:
    /// nothing that the file, its free space, or a backup made from now on holds can be opened any more. It cannot be undone. Backups of
    /// before still hold what was erased until they are removed; the receipt names them. Interrupted, it goes on at the next start.
    /// Legal holds do not exist in this version: nothing refuses an erasure because of one.
    #[command(subcommand, arg_required_else_help = true, verbatim_doc_comment, after_help = ERASE_EXAMPLES)]
    Erase(Erase),

    /// What to do when a key, a machine or a person is not to be trusted any more
    ///
    /// The running service does it at once if there is one, else it is done on the data file. Every step is an entry of the audit log.
    #[command(subcommand, arg_required_else_help = true, verbatim_doc_comment, after_help = INCIDENT_EXAMPLES)]
    Incident(Incident),

    /// Stores memories of the owner from NDJSON, one object a line, as `export` writes them
    ///
    /// A line needs `title` and `content`; times, tags, subject, replies and the rest are kept when given, ids are drawn anew.
    /// The first faulty line stops it and is named; everything before it is stored.
    #[command(after_help = "Examples:\n  rosemary import memories.ndjson\n  gunzip -c copy.gz | rosemary import -")]
    Import(Import),

    /// Writes every memory of the owner as NDJSON, in clear; the export is in the audit log before its first byte
    ///
    /// A new file is made with mode 0600; a file that is already there is not touched.
    #[command(after_help = "Examples:\n  rosemary export memories.ndjson\n  rosemary export - | age -r RECIPIENT > memories.age")]
    Export(Export),

    /// The audit log, for auditors
    #[command(subcommand, arg_required_else_help = true)]
    Audit(Audit),

    /// The anchor, which tells an older copy of the data file from the right one
    #[command(subcommand, arg_required_else_help = true)]
    Anchor(Anchor),

    /// Measures this machine: commits, requests, unlock time, as ratios to what the hardware gives
    ///
    /// Works in a folder of its own that is removed afterwards; reads no RM_* settings.
    Bench(Bench),

    /// Prints a completion script for a shell
    #[command(after_help = "Example:\n  rosemary completions bash > /usr/share/bash-completion/completions/rosemary")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: Shell,
    },

    /// Prints the manual (roff): commands, settings, exit codes
    #[command(after_help = "Example:\n  rosemary man | man -l -")]
    Man,

    /// Prints the version
    Version,
}

/// `demo`.
#[derive(Args, Debug)]
pub struct Demo {
    /// Folder for the data file, key and certificate
    #[arg(long, value_name = "FOLDER", default_value = "rosemary-demo")]
    pub dir: PathBuf,
    /// TCP port on 127.0.0.1
    #[arg(long, default_value_t = 8443)]
    pub port: u16,
    /// Remove what an earlier demo left in the folder, and begin anew
    #[arg(long)]
    pub reset: bool,
}

/// `unlock`.
#[derive(Args, Debug)]
pub struct Unlock {
    /// Key file to unlock with; without it a passphrase is asked for (standard input's first line where that is no terminal)
    #[arg(long, value_name = "FILE", conflicts_with = "shares")]
    pub key_file: Option<PathBuf>,
    /// Unlock with printed shares, one a line
    #[arg(long)]
    pub shares: bool,
}

/// `init`.
#[derive(Args, Debug, Default)]
pub struct Init {
    /// Certificate chain (PEM) to take over beside the data file, instead of a self-signed one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
}

/// `verify`.
#[derive(Args, Debug)]
pub struct Verify {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
    /// An exported log (`audit export`) to check instead of the data file; - is standard input
    #[arg(long, value_name = "FILE", requires = "key")]
    pub log: Option<PathBuf>,
    /// The log's public key, as `doctor` and `verify` print it
    #[arg(long, value_name = "VKEY", requires = "log")]
    pub key: Option<String>,
}

/// `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `backup …`.
#[derive(Subcommand, Debug)]
#[command(after_help = BACKUP_EXAMPLES)]
pub enum Backup {
    /// Makes a backup of a data file that no service has open
    Make {
        /// File to make; unless given, one of its own name in RM_BACKUP_DIR
        file: Option<PathBuf>,
    },
    /// Lists the backups that were made, oldest first, and what became of each
    List {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Restores the newest backup of RM_BACKUP_DIR aside, checks and times it, records that, and removes it again
    Drill,
    /// Checks a backup as `verify` checks a data file: every block, row, index and audit entry; changes nothing
    Verify {
        /// The backup
        file: PathBuf,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
        /// File with the key that opens it, if it is not the one of the settings
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
}

/// `erase …`.
#[derive(Subcommand, Debug)]
pub enum Erase {
    /// Erases a person with a sign-in: keys, memories, name
    User {
        /// Their e-mail address, or their id as the audit log has it
        email: String,
        #[command(flatten)]
        how: EraseHow,
    },
    /// Erases somebody memories are about: every memory about them, whoever wrote it, and their name
    Subject {
        /// The name under which memories are about them (`subject`), or their id as the audit log has it
        name: String,
        #[command(flatten)]
        how: EraseHow,
    },
    /// Lists erasures and how far each has come
    List {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Writes the receipt of an erasure as of now; one that was interrupted is brought to its end first
    Receipt {
        /// Id, as `erase list` shows it
        id: String,
        /// File to make; - is standard output
        #[arg(default_value = "-")]
        file: PathBuf,
    },
    /// Checks a receipt against nothing but the log's public key: no settings, no data file
    VerifyReceipt {
        /// The receipt; - is standard input
        file: PathBuf,
        /// The log's public key, as `doctor` and `verify` print it
        #[arg(long, value_name = "VKEY")]
        key: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

/// How to erase.
#[derive(Args, Debug)]
pub struct EraseHow {
    /// Do not ask first
    #[arg(long)]
    pub yes: bool,
    /// File to make for the receipt; standard output unless given
    #[arg(long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub receipt: PathBuf,
}

/// `restore`.
#[derive(Args, Debug)]
pub struct Restore {
    /// The backup
    pub file: PathBuf,
    /// Make this file instead of RM_DB_PATH; it must not exist
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Give up what was written after the backup was taken; the log says so, and the file that was there is kept beside
    #[arg(long)]
    pub discard_newer: bool,
    /// Restore although the list of erased people beside the anchor is older than the anchor: whoever it would name comes back; the log says so
    #[arg(long)]
    pub forget_erasures: bool,
    /// File with the key that opens the backup, if it is not the one of the settings
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// `egress …`.
#[derive(Subcommand, Debug)]
pub enum Egress {
    /// Writes the addresses that the list leads to into the relay's unit, so that the kernel drops everything else
    ///
    /// Looks each host up now, and writes IPAddressAllow= for them and for the name servers. Run it again when a host moves.
    #[command(verbatim_doc_comment)]
    Apply(Where),
    /// Prints the list, where each host leads now, and what the relay's unit lets through
    List(Where),
    /// Has the running service send the relay to each destination: connection and certificate, nothing else
    ///
    /// Each attempt is in the audit log. Exit code 1 if one failed.
    #[command(verbatim_doc_comment)]
    Test,
}

/// Where the relay's settings and its unit's drop-ins are.
#[derive(Args, Debug)]
pub struct Where {
    /// The relay's settings
    #[arg(long, value_name = "FILE", default_value = relay::FILE)]
    pub settings: PathBuf,
    /// The folder of drop-ins of the relay's unit
    #[arg(long, value_name = "DIR", default_value = "/etc/systemd/system/rosemary-relay.service.d")]
    pub unit: PathBuf,
}

/// `key …`.
#[derive(Subcommand, Debug)]
pub enum Key {
    /// Makes a key and shows it once
    #[command(after_help = "Example:\n  rosemary key make --user owner@hospital.example --label 'discharge letters'")]
    Make {
        /// Person whom the key acts for, made known if new; the owner unless given
        #[arg(long, value_name = "EMAIL")]
        user: Option<String>,
        /// What the key is for, as lists show it
        #[arg(long, value_name = "TEXT", default_value = "default")]
        label: String,
    },
    /// Lists keys: id, first characters, label, person, made, last used
    List,
    /// Revokes a key; the very next request with it is refused
    Revoke {
        /// Id, as `key list` shows it
        id: String,
    },
}

/// `keys …`.
#[derive(Subcommand, Debug)]
pub enum Keys {
    /// Lists the key slots in use, and which of them the present key opens
    List,
    /// Lets one more key unlock the data file
    #[command(after_help = "Example:\n  rosemary keys add --key-file /media/safe/second.kek --make")]
    Add(NewKek),
    /// Takes a key slot away: its key does not unlock the data file any more
    ///
    /// Backups and copies made before are still unlocked by it, and with one of them the file itself, until `keys rotate master`. The slot of the key that is presented now is not taken.
    Remove {
        /// Number, as `keys list` shows it
        slot: usize,
    },
    /// Makes shares to be printed and kept by several people: any two of three (or as told) unlock the data file together
    ///
    /// They are shown once, one a line. Fewer than are needed say nothing. `keys remove` takes their slot away.
    #[command(verbatim_doc_comment, after_help = "Example:\n  rosemary keys shares | lp          to the printer, and to no disk")]
    Shares {
        /// How many are needed
        #[arg(long, value_name = "NUMBER", default_value_t = 2)]
        need: u8,
        /// How many are made
        #[arg(long, value_name = "NUMBER", default_value_t = 3)]
        of: u8,
    },
    /// Lets a new key unlock the data file, with shares instead of a key that was lost; asks for them
    #[command(after_help = "Example:\n  rosemary keys recover --key-file /etc/rosemary/kek --make")]
    Recover(NewKek),
    /// Puts new keys in the place of old ones
    #[command(subcommand, arg_required_else_help = true)]
    Rotate(Rotate),
}

/// `keys rotate …`.
#[derive(Subcommand, Debug)]
pub enum Rotate {
    /// Another key unlocks the data file instead of the present one
    ///
    /// Changes who can open the file from now on; older backups and copies are still unlocked by the old key, and with one of them the file itself,
    /// until `keys rotate master`.
    #[command(after_help = "Example:\n  rosemary keys rotate kek --key-file /etc/rosemary/kek.2 --make && echo 'now set RM_KEK_FILE'")]
    Kek(NewKek),
    /// A new epoch key wraps every holder's key, and the old one is destroyed
    Epoch,
    /// Every holder (person, subject, workspace) gets a new key, all text is sealed again, and the old keys are destroyed
    ///
    /// Works while the service runs, and goes on by itself after a crash or a stop. The epoch is left at the end.
    Deks,
    /// A new key signs the audit log from now on; an entry of the log that both keys sign introduces it
    ///
    /// Works while the service runs. What the old key signed stays verifiable with it, and whoever holds it follows the log to the new one:
    /// `verify --log` with either. Give the new key, which is printed, to your auditors all the same.
    #[command(verbatim_doc_comment)]
    Audit,
    /// After the key and a copy of the file were taken: a new master key for the present key alone, then new keys for every holder
    ///
    /// Every other key slot is gone and named, to be enrolled again. What such a copy says stays readable to whoever has it. The service must
    /// be stopped. A run that was interrupted is simply run again. Rotate the present key first (keys rotate kek) if it was taken.
    #[command(verbatim_doc_comment)]
    Master,
    /// After the keys themselves were known to somebody: a new file of the same data, under new keys of every kind
    ///
    /// Master, block, MAC, audit signing, look-up, epoch and every holder's key are new, all text is sealed again, and the new file takes the
    /// data file's place once every row of it is checked; an interrupted run is simply run again. The audit log goes on and introduces its new
    /// key. The key presented, or a new one named here, opens it alone: every other slot is to be enrolled again. The old file is kept beside
    /// under another name, or wiped. Credentials go on working (`incident revoke-all` ends them); backups made before open with the keys of
    /// before. Needs as much free space as the data file has. The service must be stopped.
    #[command(verbatim_doc_comment, after_help = ROTATE_ALL_EXAMPLES)]
    All(RotateAll),
    /// A new TLS key: with a self-signed certificate and a request (CSR), or with your own pair in PEM
    ///
    /// Works while the service runs, which takes the new pair at once. Clients that trust the old self-signed certificate need the new one.
    #[command(after_help = "Examples:\n  rosemary keys rotate tls\n  rosemary keys rotate tls --cert chain.pem --key key.pem")]
    Tls {
        /// Certificate chain in PEM, the server's own first
        #[arg(long, value_name = "FILE", requires = "key")]
        cert: Option<PathBuf>,
        /// Its private key in PEM, readable by its owner alone
        #[arg(long, value_name = "FILE", requires = "cert")]
        key: Option<PathBuf>,
    },
}

/// `keys rotate all`.
#[derive(Args, Debug)]
pub struct RotateAll {
    /// The key that opens the new file, if not the present one: a file of at least 32 random bytes
    #[arg(long, value_name = "FILE", group = "other_kek")]
    pub key_file: Option<PathBuf>,
    /// The same: a file that holds a passphrase
    #[arg(long, value_name = "FILE", group = "other_kek")]
    pub passphrase_file: Option<PathBuf>,
    /// The same: a file with the bytes that systemd will hand over as the credential rosemary.kek
    #[arg(long, value_name = "FILE", group = "other_kek")]
    pub credential_file: Option<PathBuf>,
    /// Make the key file first, with a new random key; one that a run cut off made is taken
    #[arg(long, requires = "key_file")]
    pub make: bool,
    /// Write over the old file's keys and remove it once the new one is in its place; disks keep remnants all the same
    #[arg(long)]
    pub wipe_old: bool,
}

/// A key to unlock with.
#[derive(Args, Debug)]
#[group(required = true)]
pub struct NewKek {
    /// File of at least 32 random bytes, readable by its owner alone
    #[arg(long, value_name = "FILE", group = "new_kek")]
    pub key_file: Option<PathBuf>,
    /// File that holds a passphrase, readable by its owner alone
    #[arg(long, value_name = "FILE", group = "new_kek")]
    pub passphrase_file: Option<PathBuf>,
    /// File with the bytes that systemd will hand over as the credential rosemary.kek
    #[arg(long, value_name = "FILE", group = "new_kek")]
    pub credential_file: Option<PathBuf>,
    /// Make the key file first, with a new random key
    #[arg(long, requires = "key_file")]
    pub make: bool,
}

/// `incident …`.
#[derive(Subcommand, Debug)]
pub enum Incident {
    /// Every credential is dead with the very next request: stored keys, and the keys of the settings until other ones are set
    RevokeAll,
    /// Records become read-only; reads go on and are recorded; the log's checkpoint of this moment is kept for good
    Freeze,
    /// Records can be written again
    Thaw,
    /// New keys for every holder and a new epoch: `keys rotate deks`, and what to do if the file itself was taken
    Rotate,
    /// Writes a notice for the officer: times, counts, ids and hashes, and nothing of any record
    Report {
        /// File to make; - is standard output
        file: PathBuf,
        /// How far back operations are counted
        #[arg(long, value_name = "HOURS", default_value_t = 72, value_parser = clap::value_parser!(u32).range(1..=8784))]
        hours: u32,
    },
}

/// `audit …`.
#[derive(Subcommand, Debug)]
pub enum Audit {
    /// Writes the log, or a range of it, as a bundle: entries, signed checkpoint, proof
    ///
    /// The export is itself an entry of the log, durable before the first byte is written. A new file has mode 0600.
    #[command(after_help = "Examples:\n  rosemary audit export log.ndjson\n  rosemary verify --log log.ndjson --key 'rosemary/…+…+…'")]
    Export {
        /// File to make; - is standard output
        file: PathBuf,
        /// Index of the first entry
        #[arg(long, value_name = "INDEX", default_value_t = 0)]
        from: u64,
        /// Index after the last entry; the end of the log unless given
        #[arg(long, value_name = "INDEX")]
        to: Option<u64>,
    },
}

/// `anchor …`.
#[derive(Subcommand, Debug)]
pub enum Anchor {
    /// Takes the data file as it is and writes the anchor anew; the override is an entry of the log
    ///
    /// For when the service refuses to start because the anchor is missing, damaged, or says that the data file is an older one.
    /// Find out why first: this is what hides a rollback.
    Accept,
}

/// `import`.
#[derive(Args, Debug)]
pub struct Import {
    /// File to read; - is standard input
    pub file: PathBuf,
}

/// `export`.
#[derive(Args, Debug)]
pub struct Export {
    /// File to make; - is standard output
    #[arg(default_value = "-")]
    pub file: PathBuf,
}

/// `bench`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Bench {
    /// What else to measure
    #[command(subcommand)]
    pub what: Option<BenchOf>,
    /// Folder on the disk to measure
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub dir: PathBuf,
    /// Memories stored before measuring
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub memories: u32,
    /// Connections at once, one run each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub connections: Vec<u16>,
    /// Seconds of each run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=600))]
    pub seconds: u16,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// What `bench` measures beside speed.
#[derive(Subcommand, Debug)]
pub enum BenchOf {
    /// Measures whether searches find what answers a question: Recall@1/5/10/20, and the time inside a search
    ///
    /// Reads every *.json of a folder, one conversation each: turns (id, session, time, speaker, text, caption) and questions
    /// (question, evidence, category), as the LoCoMo files have them. Each turn is stored as one memory; a question's recall is the
    /// share of its evidence among the first results. Nothing is kept.
    #[command(verbatim_doc_comment, after_help = "Example:\n  rosemary bench recall conversations/ --json")]
    Recall(Recall),
}

/// `bench recall`.
#[derive(Args, Debug)]
pub struct Recall {
    /// Folder with the conversations
    pub dir: PathBuf,
    /// Folder to store in while measuring
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub scratch: PathBuf,
    /// Model of embeddings, as RM_EMBEDDING_MODEL names it: each question is asked by words alone and by words and meaning
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// Shells with completions.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[allow(missing_docs)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

/// The declaration as clap knows it.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_declaration_is_consistent() {
        super::command().debug_assert();
    }
}
