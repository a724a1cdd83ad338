//! Arguments and settings: what the operator sees before anything is opened.

use std::process::{Command, Output};

/// Runs the program with `arguments` and only `settings` in its environment.
fn rosemary(arguments: &[&str], settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rosemary"));
    command.args(arguments).env_clear().envs(settings.iter().copied()).output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let out = rosemary(&["--help"], &[]);
    assert!(out.status.success());
    let help = text(&out.stdout);
    for word in ["demo", "init", "serve", "verify", "doctor", "key", "keys", "import", "export", "bench", "78"] {
        assert!(help.contains(word), "{word} is missing from:\n{help}");
    }
}

#[test]
fn version_is_that_of_the_manifest() {
    let out = rosemary(&["--version"], &[]);
    assert!(out.status.success() && text(&out.stdout).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn an_unknown_command_is_a_usage_error() {
    let out = rosemary(&["sevre"], &[]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("serve"), "the nearest command is named");
}

#[test]
fn missing_settings_are_named_all_at_once() {
    let out = rosemary(&["serve"], &[]);
    assert_eq!(out.status.code(), Some(78));
    for name in ["RM_DB_PATH", "RM_TENANT_ID", "RM_OWNER_EMAIL", "RM_KEK_FILE"] {
        assert!(text(&out.stderr).contains(name), "{name} is missing from:\n{}", text(&out.stderr));
    }
}

#[test]
fn a_misspelt_setting_is_refused_with_the_nearest_name() {
    let out = rosemary(&["serve"], &[("RM_DB_PAHT", "/nowhere/x.db")]);
    assert_eq!(out.status.code(), Some(78));
    assert!(text(&out.stderr).contains("RM_DB_PAHT") && text(&out.stderr).contains("RM_DB_PATH"));
}

#[test]
fn a_bad_secret_is_not_repeated() {
    let out = rosemary(&["serve"], &[("RM_API_KEY", "short-canary")]);
    assert_eq!(out.status.code(), Some(78));
    let message = text(&out.stderr);
    assert!(message.contains("RM_API_KEY") && !message.contains("short-canary"), "{message}");
}

#[test]
fn every_completion_and_the_man_page_come_from_the_same_source() {
    for shell in ["bash", "zsh", "fish"] {
        let out = rosemary(&["completions", shell], &[]);
        assert!(out.status.success() && text(&out.stdout).contains("rosemary"), "{shell}");
    }
    let man = rosemary(&["man"], &[]);
    assert!(man.status.success() && text(&man.stdout).contains(".TH"));
}
