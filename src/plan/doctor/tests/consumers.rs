//! Who uses the shares.

use super::*;
use crate::plan::doctor::facts::UserUnit;

#[test]
fn a_container_should_be_known_to_one_engine() {
    let found = |engines: Result<Vec<&'static str>, String>| {
        one(|_, services| drop(services.containers.insert("container:tdarr".into(), engines.clone())))
    };
    let (id, severity, what, remedy) = found(Ok(vec![]));
    assert_eq!((id, severity), ("consumer-unknown", Severity::Warning));
    assert_eq!(what, "no container engine knows tdarr, a consumer");
    assert_eq!(remedy, "(docker ps --all; podman ps --all) | grep -i tdarr");
    let (id, _, what, _) = found(Err("no container engine listens".into()));
    assert_eq!(id, "consumer-unknown");
    assert_eq!(what, "the container tdarr, a consumer, cannot be found: no container engine listens");
    let (id, _, what, remedy) = found(Ok(vec!["Docker", "Podman"]));
    assert_eq!((id, what.as_str()), ("container-ambiguous", "Docker and Podman have a container tdarr, a consumer"));
    assert!(remedy.starts_with("write engine = \"podman\" beside container = \"tdarr\""), "{remedy}");
    let known = after(|_, services| drop(services.containers.insert("container:tdarr".into(), Ok(vec!["Podman"]))));
    assert_eq!(known, []);
}

#[test]
fn a_label_that_nobody_has_is_no_more_than_a_note() {
    let found = |consumer: &str, members: Result<usize, String>| {
        one(|_, services| drop(services.groups.insert(consumer.to_owned(), members.clone())))
    };
    let (id, severity, what, remedy) = found("compose:arr", Ok(0));
    assert_eq!((id, severity), ("consumer-empty", Severity::Note));
    assert_eq!(what, "no container engine has a container for compose:arr, a consumer");
    assert!(remedy.starts_with("filter=label=com.docker.compose.project=arr; docker ps"), "{remedy}");
    let (_, severity, what, _) = found("label:films", Err("no container engine listens".into()));
    assert_eq!(severity, Severity::Note);
    assert_eq!(what, "the containers of label:films, a consumer, cannot be found: no container engine listens");
}

#[test]
fn a_unit_of_a_users_should_be_known_to_their_manager() {
    let insert = |known: UserUnit| {
        after(move |_, services| drop(services.user_units.insert("user:anna/mpd.service".into(), known.clone())))
    };
    assert_eq!(insert(UserUnit::Known), []);
    for (known, what, remedy) in [
        (
            UserUnit::Unknown,
            "the service manager of anna does not know mpd.service, a consumer",
            "systemctl --user --machine=anna@.host list-unit-files",
        ),
        (
            UserUnit::NoManager("it does not run".to_owned()),
            "mpd.service, a consumer, cannot be found: it does not run",
            "loginctl enable-linger anna",
        ),
        (
            UserUnit::NobodysName("/etc/passwd has no user anna".to_owned()),
            "mpd.service, a consumer, cannot be found: /etc/passwd has no user anna",
            "correct user = \"anna\" beside unit = \"mpd.service\" in the configuration; then nasmount reload",
        ),
        (
            UserUnit::Unasked("it hangs".to_owned()),
            "mpd.service, a consumer, cannot be found: it hangs",
            "loginctl user-status anna",
        ),
    ] {
        let (id, severity, said, does) =
            one(|_, services| drop(services.user_units.insert("user:anna/mpd.service".into(), known.clone())));
        assert_eq!((id, severity, said.as_str(), does.as_str()), ("consumer-unknown", Severity::Warning, what, remedy));
    }
}

#[test]
fn what_was_not_looked_at_is_said() {
    let found = after(|_, services| services.systemd_silent = Some("no such socket".into()));
    let [Finding { id, severity, what, why, .. }] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(
        (*id, *severity, what.as_str()),
        ("systemd-silent", Severity::Note, "systemd cannot be asked: no such socket")
    );
    assert!(why.contains("player.service, scan.timer") && why.ends_with("who requires the shares"), "{why}");
}

#[test]
fn consumers_should_be_known_and_wait() {
    let (id, severity, what, remedy) =
        one(|_, services| drop(services.consumers.insert("player.service".into(), None)));
    assert_eq!((id, severity), ("consumer-unknown", Severity::Warning));
    assert_eq!(what, "systemd does not know player.service, a consumer of films");
    assert_eq!(remedy, "systemctl list-unit-files | grep -i player");
    let hasty = |services: &mut ServiceFacts| {
        services.consumers.insert("player.service".into(), Some(vec!["basic.target".into()]));
    };
    let (id, severity, what, remedy) = one(|_, services| hasty(services));
    assert_eq!((id, severity), ("consumer-hasty", Severity::Warning));
    assert_eq!(
        (what.as_str(), remedy.as_str()),
        ("the start of player.service does not wait for films", "systemctl daemon-reload")
    );
    let of_another_configuration = after(|_, services| {
        hasty(services);
        services.generator = Generator::ReadsAnother;
    });
    assert_eq!(of_another_configuration, []);
    assert_eq!(after(|_, services| services.consumers.clear()), [], "systemd was not asked");
    let scope = after(|_, services| drop(services.consumers.insert("docker-1a.scope".into(), None)));
    assert_eq!(scope, [], "the container does not run");
}
