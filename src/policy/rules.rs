//! The table: which asker may do which verb to a thing it stands in which relation to. All else is denied.
//!
//! The picture of this table is `tests/it/policy_matrix.txt`; a change here shows there.

use crate::policy::action::VERBS;

/// Kinds of asker, as the table knows them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asker {
    /// A person who administrates the instance.
    Admin,
    /// A person.
    User,
    /// A person's agent.
    Agent,
    /// The program itself.
    System,
}

/// How the asker stands to the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// It belongs to the person asking (to an agent: it wrote this memory itself and may see it).
    Own,
    /// To an agent: its person's, and open to its vendor, but written by somebody else.
    Visible,
    /// To an agent: its person's, but not open to its vendor.
    Hidden,
    /// To an agent: its person's, in the trash.
    Trashed,
    /// Somebody else's in this workspace.
    Foreign,
    /// In another workspace.
    ForeignTenant,
    /// Does not exist.
    Absent,
}

impl Relation {
    /// All relations, in the order of the picture.
    pub const ALL: &'static [Relation] = &[
        Relation::Own,
        Relation::Visible,
        Relation::Hidden,
        Relation::Trashed,
        Relation::Foreign,
        Relation::ForeignTenant,
        Relation::Absent,
    ];
}

impl Asker {
    /// All askers, in the order of the picture.
    pub const ALL: &'static [Asker] = &[Asker::Admin, Asker::User, Asker::Agent, Asker::System];
}

/// One line of the table.
pub struct Rule {
    askers: &'static [Asker],
    verbs: &'static [&'static str],
    relations: &'static [Relation],
}

use Asker::{Admin, Agent, System, User};
use Relation::{Own, Visible};

/// The table.
pub const RULES: &[Rule] = &[
    // A person does anything to their own memories, trash included.
    Rule {
        askers: &[Admin, User],
        verbs: &[
            "memory.create",
            "memory.read",
            "memory.versions",
            "memory.thread",
            "memory.reply",
            "memory.list",
            "memory.brief",
            "memory.graph",
            "memory.around",
            "memory.search",
            "memory.query",
            "memory.update",
            "memory.trash",
            "memory.trash_all",
            "memory.restore",
            "memory.purge",
            "memory.empty_trash",
            "memory.watch",
            "memory.event",
        ],
        relations: &[Own],
    },
    // An agent writes and finds among its person's memories, and reads what is open to its vendor.
    Rule {
        askers: &[Agent],
        verbs: &["memory.create", "memory.list", "memory.brief", "memory.around", "memory.search", "memory.query"],
        relations: &[Own],
    },
    Rule { askers: &[Agent], verbs: &["memory.read", "memory.versions", "memory.thread", "memory.reply"], relations: &[Own, Visible] },
    // It changes only what it wrote itself.
    Rule { askers: &[Agent], verbs: &["memory.update", "memory.trash", "memory.trash_all"], relations: &[Own] },
    // MCP is for agents: whoever comes that way is one.
    Rule {
        askers: &[Agent],
        verbs: &["mcp.initialize", "mcp.discover", "mcp.tools", "mcp.call", "mcp.ping", "mcp.notify", "mcp.level", "mcp.listen", "mcp.end"],
        relations: &[Own],
    },
    // Everybody may ask who they are and how their own operation ended.
    Rule { askers: &[Admin, User, Agent], verbs: &["identity.read", "operation.read"], relations: &[Own] },
    // A person may talk to the site's language model.
    Rule { askers: &[Admin, User], verbs: &["model.chat", "model.list"], relations: &[Own] },
    // A person sees how much they may keep and used.
    Rule { askers: &[Admin, User], verbs: &["usage.read", "billing.pay"], relations: &[Own] },
    // Keys are made and revoked by the person they speak for.
    Rule { askers: &[Admin, User], verbs: &["key.create", "key.list", "key.revoke"], relations: &[Own] },
    // A person consents to clients, and sees and ends what they consented to; a client gets, renews and gives back what it was granted.
    Rule { askers: &[Admin, User], verbs: &["oauth.consent", "oauth.list", "oauth.revoke"], relations: &[Own] },
    Rule { askers: &[Agent], verbs: &["oauth.issue", "oauth.refresh", "oauth.revoke", "oauth.replay"], relations: &[Own] },
    Rule { askers: &[Admin, Agent, System], verbs: &["oauth.status"], relations: &[Own] },
    // So are names.
    Rule { askers: &[Admin, User], verbs: &["identity.update"], relations: &[Own] },
    // Who is known is for administrators to see.
    Rule { askers: &[Admin], verbs: &["person.list", "admin.read"], relations: &[Own] },
    // Who is erased is for administrators to say, and how the instance stands for them to know.
    Rule { askers: &[Admin, System], verbs: &["erasure.ask", "erasure.read", "status.read"], relations: &[Own] },
    // Who administrates the instance sees its backups and asks for one.
    Rule { askers: &[Admin], verbs: &["backup.ask", "backup.list"], relations: &[Own] },
    // And how far the vectors of memories are.
    Rule { askers: &[Admin, System], verbs: &["embedding.read"], relations: &[Own] },
    // The operator at the console acts as the program, and so do its background parts.
    Rule {
        askers: &[System],
        verbs: &[
            "memory.import",
            "memory.export",
            "memory.index",
            "memory.embed",
            "key.create",
            "key.list",
            "key.revoke",
            "audit.export",
            "anchor.accept",
            "backup.begin",
            "backup.end",
            "backup.list",
            "backup.drill",
            "egress.send",
            "egress.end",
            "person.create",
            "memory.erase",
            "erasure.destroy",
            "erasure.end",
            "keys.epoch",
            "keys.rewrap",
            "keys.renew",
            "keys.reseal",
            "keys.tls",
            "keys.audit",
            "keys.all",
            "keys.slots",
            "instance.unlock",
            "incident.revoke_all",
            "incident.freeze",
            "incident.report",
        ],
        relations: &[Own],
    },
];

/// Whether the table allows it.
pub fn allows(asker: Asker, verb: &str, relation: Relation) -> bool {
    RULES.iter().any(|rule| rule.askers.contains(&asker) && rule.verbs.contains(&verb) && rule.relations.contains(&relation))
}

/// The picture: one line a verb, one column an asker, the relations that are allowed.
pub fn matrix() -> String {
    let mut picture = String::from("verb                 admin                user                 agent                system\n");
    for verb in VERBS {
        let mut line = format!("{verb:<20} ");
        for asker in Asker::ALL {
            let allowed: Vec<String> =
                Relation::ALL.iter().filter(|r| allows(*asker, verb, **r)).map(|r| format!("{r:?}").to_lowercase()).collect();
            line += &format!("{:<21}", if allowed.is_empty() { "-".to_owned() } else { allowed.join(",") });
        }
        picture += line.trim_end();
        picture.push('\n');
    }
    picture
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_of_the_policy_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/policy_matrix.txt");
        if std::env::var_os("ROSEMARY_BLESS").is_some() {
            std::fs::write(path, matrix()).unwrap();
        }
        assert_eq!(matrix(), std::fs::read_to_string(path).unwrap(), "run the tests with ROSEMARY_BLESS=1 and review the change");
    }

    #[test]
    fn every_rule_names_verbs_that_exist() {
        for verb in RULES.iter().flat_map(|rule| rule.verbs) {
            assert!(VERBS.contains(verb), "{verb}");
        }
    }

    #[test]
    fn nobody_reaches_what_is_foreign_hidden_or_absent() {
        for asker in Asker::ALL {
            for verb in VERBS {
                for relation in [Relation::Hidden, Relation::Trashed, Relation::Foreign, Relation::ForeignTenant, Relation::Absent] {
                    assert!(!allows(*asker, verb, relation), "{asker:?} {verb} {relation:?}");
                }
            }
        }
    }

    #[test]
    fn every_verb_is_allowed_to_somebody_and_an_unknown_verb_to_nobody() {
        for verb in VERBS {
            assert!(Asker::ALL.iter().any(|a| allows(*a, verb, Own)), "{verb}");
        }
        assert!(Asker::ALL.iter().all(|a| Relation::ALL.iter().all(|r| !allows(*a, "memory.teleport", *r))));
    }
}
