#![expect(clippy::unwrap_used, reason = "tests")]

use core::net::SocketAddr;
use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::config::settings::CredentialSource;
use crate::config::{self, SourceText, shipped_profiles};
use crate::share::detector::LocalTrouble;
use crate::share::detector::network::Interface;

const ADDRESS: &str = "10.10.0.35";

/// A share with these lines in its table.
fn share(more: &str) -> ShareSettings {
    let text = format!(
        "[server.tower]\nhost = \"{ADDRESS}\"\n[share.films]\nserver = \"tower\"\nmount_point = \"/mnt/films\"\n{more}\n"
    );
    let loaded = config::load(&[SourceText::new("nasmount.toml", text.as_str())], &shipped_profiles()).unwrap();
    loaded.settings.shares.into_values().next().unwrap()
}

fn films() -> ShareSettings {
    share("source = \"films\"")
}

fn greeting(dialect: u16) -> Greeting {
    Greeting { dialect, signing: Signing::Possible, encryption: Encryption::Possible, system_time: 0 }
}

fn greeted(milliseconds: u64) -> Look {
    let took = Duration::from_millis(milliseconds);
    Look::Greeted { connect: took, answer: 2 * took, greeting: greeting(0x0311), ahead: None }
}

fn strange(why: NoGreeting) -> Look {
    Look::NoGreeting { connect: Duration::from_millis(1), why }
}

#[test]
fn a_name_has_an_address_or_a_reason() {
    let all = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    assert_eq!(of_name("tower.lan", Ok(&all(&[ADDRESS]))).unwrap(), "tower.lan is 10.10.0.35");
    let several = of_name("tower.lan", Ok(&all(&["::1", ADDRESS]))).unwrap();
    assert_eq!(several, "tower.lan has 2 addresses; 10.10.0.35 is tried");
    for nothing in [of_name("tower.lan", Ok(&all(&[]))), of_name("tower.lan", Err("no answer within 30 s"))] {
        let trouble = nothing.unwrap_err();
        assert_eq!(trouble.step, Step::Name);
        assert!(trouble.fix.contains("getent ahosts tower.lan"), "{trouble:?}");
    }
    let trouble = of_name("tower.local", Ok(&all(&["fe80::35"]))).unwrap_err();
    assert!(trouble.fix.contains("fe80::35%INTERFACE"), "{trouble:?}");
    assert!(of_name("tower.local", Ok(&all(&["fe80::35", "fd00::35"]))).is_ok());
    assert!(of_zone("fe80::1%eth0", "eth0", Some(2)).is_ok());
    assert_eq!(of_zone("fe80::1%eth9", "eth9", None).unwrap_err().message, "this host has no interface eth9");
}

#[test]
fn off_its_networks_a_server_is_not_looked_at() {
    let text = format!("[server.tower]\nhost = \"{ADDRESS}\"\nonly_on = [\"10.10.0.0/24\", \"wg0\"]\n");
    let loaded = config::load(&[SourceText::new("nasmount.toml", text)], &shipped_profiles()).unwrap();
    let only_on = loaded.settings.servers.into_values().next().unwrap().only_on;
    let at = |address: &str| {
        let addresses = vec![address.parse().unwrap()];
        of_network(&only_on, Ok(&[Interface { name: "eth0".into(), is_up: true, addresses }]))
    };
    assert_eq!(at("10.10.0.7").unwrap(), "eth0 has 10.10.0.7; only_on = 10.10.0.0/24, wg0");
    let trouble = at("10.11.0.7").unwrap_err();
    assert_eq!(
        (trouble.step, trouble.message.as_str()),
        (Step::Network, "not on its network: only_on = 10.10.0.0/24, wg0")
    );
    assert!(trouble.cause.contains("nothing was sent"), "{trouble:?}");
    assert_eq!(of_network(&only_on, Err("a worker hangs")).unwrap_err().step, Step::Network);
}

#[test]
fn route_and_link_are_two_steps() {
    let steps = |found| {
        let mut diagnosis = Diagnosis::default();
        let fine = add_way(&mut diagnosis, ADDRESS.parse().unwrap(), found, Duration::ZERO);
        assert_eq!(fine, diagnosis.cause.is_none());
        diagnosis.steps.iter().map(|finding| (finding.step, finding.outcome)).collect::<Vec<_>>()
    };
    let trouble = |trouble| Ok(Some((trouble, "what was seen".to_owned())));
    assert_eq!(steps(Ok(None)), [(Step::Route, Outcome::Ok), (Step::Link, Outcome::Ok)]);
    assert_eq!(steps(trouble(LocalTrouble::NoRoute)), [(Step::Route, Outcome::Failed)]);
    assert_eq!(steps(trouble(LocalTrouble::NoAddress)), [(Step::Route, Outcome::Failed)]);
    assert_eq!(steps(trouble(LocalTrouble::OffNetwork)), [(Step::Network, Outcome::Failed)]);
    assert_eq!(steps(trouble(LocalTrouble::NoLink)), [(Step::Route, Outcome::Ok), (Step::Link, Outcome::Failed)]);
    assert_eq!(steps(Err("a worker hangs")), [(Step::Route, Outcome::Failed)]);
}

#[test]
fn a_port_that_takes_no_connection_says_whose_fault_it_is() {
    let server = SocketAddr::new(ADDRESS.parse().unwrap(), 445);
    assert_eq!(of_port(&greeted(1), server).unwrap(), "10.10.0.35:445 takes a connection in 1.0 ms");
    assert!(of_port(&strange(NoGreeting::Closed), server).is_ok(), "that is the next step's");
    let cause = |why| of_port(&Look::NoConnection(why), server).unwrap_err().cause;
    assert!(cause(NoConnection::Refused).contains("its SMB service is not"));
    assert!(cause(NoConnection::Silent).contains("swallows"));
    assert!(cause(NoConnection::Unreachable).contains("nobody has the server's address"));
    assert!(cause(NoConnection::Other("EMFILE".to_owned())).contains("this host"));
}

#[test]
fn what_is_not_smb_2_is_named() {
    assert_eq!(of_dialect(&greeted(1), None, None).unwrap(), "SMB 3.1.1, answers in 2.0 ms");
    let trouble = |why| of_dialect(&strange(why), None, None).unwrap_err();
    for (dialect, share) in [(0x0999, None), (0x02ff, None), (0x0210, Some(films()))] {
        let (connect, answer) = (Duration::ZERO, Duration::ZERO);
        let look = Look::Greeted { connect, answer, greeting: greeting(dialect), ahead: None };
        assert!(of_dialect(&look, share.as_ref(), None).unwrap_err().message.ends_with("which was not offered"));
    }
    for (why, cause) in [
        (NoGreeting::Smb1, "Host is down"),
        (NoGreeting::Closed, "does not let this host in"),
        (NoGreeting::Silent, "hangs"),
        (NoGreeting::Tls, "another service"),
        (NoGreeting::Http, "proxy"),
        (NoGreeting::Garbled, "another service"),
        (NoGreeting::Incomplete { bytes: 3, of: None, ending: Unfinished::Late }, "hangs in the middle"),
        (NoGreeting::Incomplete { bytes: 7, of: Some(236), ending: Unfinished::Closed }, "broke off"),
        (NoGreeting::Status(0xc000_00bb), "no version of SMB"),
        (NoGreeting::Status(0xc000_0022), "refuses this host, not a login"),
        (NoGreeting::Status(0xc000_009a), "out of memory"),
        (NoGreeting::Status(0xc000_1234), "has no words for"),
    ] {
        assert!(trouble(why).cause.contains(cause), "{:?}", trouble(why));
        assert_eq!(trouble(why).step, Step::Dialect);
    }
}

#[test]
fn a_status_has_its_name_and_its_number_and_a_beginning_its_length() {
    let message = |why| of_dialect(&strange(why), None, None).unwrap_err().message;
    let refused = message(NoGreeting::Status(0xc000_0022));
    assert_eq!(refused, "the server answers with STATUS_ACCESS_DENIED (0xc0000022)");
    assert!(message(NoGreeting::Status(0xc000_1234)).ends_with("the NT status 0xc0001234"));
    let part = |bytes, of, ending| message(NoGreeting::Incomplete { bytes, of, ending });
    assert!(part(7, Some(236), Unfinished::Closed).contains("7 of the 236 bytes of its answer and ends"));
    assert!(part(3, None, Unfinished::Late).contains("3 bytes, which is no whole answer"));
    // whatever it speaks otherwise: what it refuses is no version
    let busy = of_dialect(&strange(NoGreeting::Status(0xc000_009a)), Some(&films()), Some(0x0311)).unwrap_err();
    assert!(!busy.fix.contains("vers"), "{busy:?}");
}

#[test]
fn the_version_is_the_one_that_the_share_asks_for() {
    assert_eq!(dialects_of(None).len(), 5);
    let of = |vers: &str| dialects_of(Some(&share(&format!("source = \"films\"\noptions = {{ vers = \"{vers}\" }}"))));
    assert_eq!(of("3.1.1"), [0x0311]);
    assert_eq!(of("3"), [0x0300, 0x0302, 0x0311]);
    assert_eq!(of("2.1"), [0x0210]);
    assert_eq!(of("default"), [0x0210, 0x0300, 0x0302, 0x0311]);
    let older = of_dialect(&strange(NoGreeting::Status(0xc000_00bb)), Some(&films()), Some(0x0302)).unwrap_err();
    assert_eq!(older.cause, "`vers` is 3.1.1, and the server speaks 3.0.2");
    assert!(older.fix.contains("vers = \"3.0.2\""), "{older:?}");
}

#[test]
fn encryption_is_a_trouble_where_it_is_asked_for() {
    let plain = Greeting { encryption: Encryption::None, signing: Signing::Required, ..greeting(0x0210) };
    assert_eq!(of_signing(&plain, Some(&films())).unwrap(), "signing is required, encryption is not possible");
    let sealed = share("source = \"films\"\noptions = { seal = true }");
    assert_eq!(of_signing(&plain, Some(&sealed)).unwrap_err().step, Step::Signing);
    assert!(of_signing(&greeting(0x0311), Some(&sealed)).is_ok());
}

#[test]
fn the_latency_is_the_middle() {
    let looks = [greeted(9), greeted(1), greeted(2), strange(NoGreeting::Silent), greeted(3)];
    assert_eq!(of_latency(&looks), "connections take 3.0 ms and answers 6.0 ms, the middle of 5; 1 were not answered");
}

#[test]
fn clocks_matter_to_kerberos() {
    assert_eq!(of_clock(None, None).unwrap(), "the server does not tell the time");
    assert_eq!(of_clock(Some(-0.4), None).unwrap(), "the clocks agree to a second");
    assert_eq!(of_clock(Some(-61.0), None).unwrap(), "the server's clock is 61 s behind");
    assert_eq!(of_clock(Some(61.4), None).unwrap(), "the server's clock is 61 s ahead");
    assert_eq!(of_clock(Some(300.0), None).unwrap(), "the server's clock is 300 s ahead");
    assert!(of_clock(Some(301.0), Some(&films())).unwrap().contains("too far for Kerberos"));
    let kerberos = share("source = \"films\"\noptions = { sec = \"krb5i\" }");
    assert!(of_clock(Some(299.0), Some(&kerberos)).is_ok());
    assert_eq!(of_clock(Some(-301.0), Some(&kerberos)).unwrap_err().step, Step::Clock);
}

fn passed(parts: &[Part]) -> Vec<Passed> {
    parts.iter().map(|part| Passed { part: *part, seconds: 0.25, said: "said".to_owned() }).collect()
}

/// A trial that failed behind these parts.
fn failed(parts: &[Part], errno: i32, log: Option<&[&str]>) -> Trial {
    let (passed, share) = (passed(parts), share("source = \"films\"\nmarker = \"here\""));
    let part = next_part(&passed, &subject(&share, &CredentialSource::Guest));
    let errno = Some((errno, format!("E{errno}")));
    let failure = TrialFailure { part, message: "cannot mount".to_owned(), errno, ending: Ending::Error };
    let log = log.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect());
    Trial { passed, failed: Some(failure), log }
}

fn subject<'share>(share: &'share ShareSettings, credentials: &'share CredentialSource) -> Subject<'share> {
    Subject { share, credentials, address: ADDRESS.parse().unwrap() }
}

fn with_login() -> CredentialSource {
    CredentialSource::File("/etc/nasmount/tower.cred".into())
}

fn diagnosed(trial: &Trial, share: &ShareSettings, credentials: &CredentialSource) -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    let writing = Writing::of(share, Some(".file".to_owned()));
    add_trial(&mut diagnosis, trial, &subject(share, credentials), &writing);
    diagnosis.skip_rest(&Step::OF_SHARE);
    diagnosis
}

fn outcomes(diagnosis: &Diagnosis) -> Vec<(Step, Outcome)> {
    diagnosis.steps.iter().map(|finding| (finding.step, finding.outcome)).collect()
}

fn blamed(diagnosis: &Diagnosis) -> Step {
    diagnosis.steps.iter().find(|finding| finding.outcome == Outcome::Failed).unwrap().step
}

#[test]
fn each_word_of_the_kernel_has_its_cause_and_fix() {
    assert!(WORDS.len() >= 25, "the table has lost rows");
    for (at, word) in WORDS.iter().enumerate() {
        let hidden = WORDS[..at].iter().find(|before| word.word.contains(before.word));
        assert!(hidden.is_none(), "{} is never found behind {hidden:?}", word.word);
        let line = format!("CIFS: VFS: \\\\{ADDRESS} {}", word.word);
        let trial = failed(&[Part::Options], 5, Some(&[&line]));
        let diagnosis = diagnosed(&trial, &films(), &with_login());
        assert_eq!(blamed(&diagnosis), word.step);
        assert_eq!(diagnosis.cause.as_deref(), Some(word.cause));
        assert_eq!(diagnosis.fix.as_deref(), Some(word.fix));
        assert_eq!(diagnosis.kernel, [line]);
        assert!(!word.cause.ends_with('.') && !word.fix.ends_with('.'), "{word:?}");
    }
}

#[test]
fn each_number_has_its_cause_and_fix() {
    assert!(NUMBERS.len() >= 25, "the table has lost rows");
    let mut seen = BTreeSet::new();
    for row in NUMBERS {
        assert!(seen.insert((row.part, row.errno)), "{row:?} is there twice");
        let before: &[Part] = match row.part {
            Part::Options => &[],
            Part::Create => &[Part::Options],
            Part::Read => &[Part::Options, Part::Create, Part::Mount],
            Part::Write => &[Part::Options, Part::Create, Part::Mount, Part::Read, Part::Marker],
            Part::ShareAlone | Part::Mount | Part::Marker => panic!("no number is of this part: {row:?}"),
        };
        let diagnosis = diagnosed(&failed(before, row.errno, None), &films(), &with_login());
        assert_eq!(blamed(&diagnosis), row.step, "{row:?}");
        assert_eq!(diagnosis.cause.as_deref(), Some(row.cause));
        assert_eq!(diagnosis.fix.as_deref(), Some(row.fix));
        assert!(!row.cause.ends_with('.') && !row.fix.ends_with('.'), "{row:?}");
    }
}

#[test]
fn what_people_meet_most_is_in_the_tables() {
    let row = |part, name: &str| NUMBERS.iter().find(|row| row.part == part && row.name == name).unwrap();
    for (name, step, cause) in [
        ("EREMOTEIO", Step::Mount, "input/output error of its own"),
        ("ENOKEY", Step::Login, "no Kerberos ticket"),
        ("EOPNOTSUPP", Step::Login, "agree on no version"),
        ("EINPROGRESS", Step::Login, "not answered"),
        ("ECONNREFUSED", Step::Login, "refused"),
    ] {
        let row = row(Part::Create, name);
        assert!(row.step == step && row.cause.contains(cause), "{row:?}");
    }
    let locked = "CIFS: Status code returned 0xc0000234 STATUS_ACCOUNT_LOCKED_OUT";
    let diagnosis = diagnosed(&failed(&[Part::Options], 13, Some(&[locked])), &films(), &with_login());
    assert_eq!(blamed(&diagnosis), Step::Login);
    assert!(diagnosis.cause.unwrap().contains("locked the account"));
}

/// A share that demands encryption answers the connection to it with STATUS_ACCESS_DENIED, which is not logged.
#[test]
fn a_share_that_demands_encryption_is_one_cause_where_there_can_be_none() {
    let denied = failed(&[Part::Options], 13, Some(&["CIFS: Attempting to mount //10.10.0.35/films"]));
    let of = |share: &ShareSettings| diagnosed(&denied, share, &with_login());
    let old = share("source = \"films\"\noptions = { vers = \"2.1\" }");
    let diagnosis = of(&old);
    assert_eq!(blamed(&diagnosis), Step::Share);
    assert!(diagnosis.cause.unwrap().contains("or the server demands encryption"));
    assert!(diagnosis.fix.unwrap().contains("vers = \"3.1.1\""));
    assert!(!of(&films()).cause.unwrap().contains("encryption"), "SMB 3 encrypts by itself where it has to");
}

#[test]
fn what_went_well_before_is_said_and_what_is_not_known_is_not() {
    use Outcome::{Failed, Ok, Skipped};
    let no_share = failed(&[Part::Options], 2, None);
    let rest = [(Step::Path, Skipped), (Step::Mount, Skipped), (Step::Read, Skipped)];
    let last = [(Step::Marker, Skipped), (Step::Write, Skipped)];
    let all = |first: &[(Step, Outcome)]| [first, &rest, &last].concat();
    let expected = all(&[(Step::Options, Ok), (Step::Login, Ok), (Step::Share, Failed)]);
    assert_eq!(outcomes(&diagnosed(&no_share, &films(), &with_login())), expected);
    let own_error = diagnosed(&failed(&[Part::Options], 121, None), &films(), &with_login());
    let unknown = [(Step::Options, Ok), (Step::Login, Skipped), (Step::Share, Skipped), (Step::Path, Skipped)];
    let mount = [(Step::Mount, Failed), (Step::Read, Skipped)];
    assert_eq!(outcomes(&own_error), [&unknown[..], &mount, &last].concat());
}

#[test]
fn all_went_well() {
    let every = [Part::Options, Part::Create, Part::Mount, Part::Read, Part::Write];
    let trial = Trial { passed: passed(&every), failed: None, log: Some(vec!["CIFS: Attempting to mount".to_owned()]) };
    let diagnosis = diagnosed(&trial, &share("source = \"films/new\""), &with_login());
    assert_eq!((&diagnosis.cause, diagnosis.kernel.len()), (&None, 0));
    let not_ok: Vec<_> = outcomes(&diagnosis).into_iter().filter(|(_, outcome)| *outcome != Outcome::Ok).collect();
    assert_eq!(not_ok, [(Step::Marker, Outcome::Skipped)]);
    assert!(diagnosis.steps.iter().any(|finding| finding.message == "new is there"));
    let read_only = share("source = \"films\"\noptions = { ro = true }");
    let trial = Trial { passed: passed(&every[..4]), ..trial };
    let last = diagnosed(&trial, &read_only, &with_login()).steps.pop().unwrap();
    assert_eq!((last.step, last.outcome), (Step::Write, Outcome::Skipped));
    assert!(last.message.contains("read-only"), "{last:?}");
}

#[test]
fn a_directory_that_is_not_there_is_told_from_a_share_that_is_not() {
    let deep = share("source = \"films/new\"");
    let alone = diagnosed(&failed(&[Part::Options, Part::ShareAlone], 2, None), &deep, &with_login());
    assert_eq!(blamed(&alone), Step::Path);
    assert!(alone.cause.unwrap().contains("new is not in it"));
    let neither = diagnosed(&failed(&[Part::Options], 2, None), &deep, &with_login());
    assert_eq!(blamed(&neither), Step::Share);
}

#[test]
fn a_refused_login_is_told_from_a_refused_share_by_the_log() {
    let refused = |log: Option<&[&str]>, credentials: &CredentialSource| {
        let diagnosis = diagnosed(&failed(&[Part::Options], 13, log), &films(), credentials);
        (blamed(&diagnosis), diagnosis.cause.unwrap())
    };
    let mounting = "CIFS: Attempting to mount //10.10.0.35/films";
    let login = "CIFS: VFS: \\\\10.10.0.35 Send error in SessSetup = -13";
    assert_eq!(refused(Some(&[mounting, login]), &with_login()).0, Step::Login);
    let (step, cause) = refused(Some(&[mounting]), &with_login());
    assert!(step == Step::Share && cause.contains("the login is right"), "{cause}");
    let (step, cause) = refused(None, &with_login());
    assert!(step == Step::Login && cause.contains(", or this user"), "not known: {cause}");
    assert_eq!(refused(Some(&[login]), &CredentialSource::Guest).1, "the server takes no guests");
    assert_eq!(refused(Some(&[mounting]), &CredentialSource::Guest).1, "a guest may not use the share");
}

#[test]
fn what_the_kernel_says_of_other_servers_is_theirs() {
    let theirs = "CIFS: VFS: \\\\10.10.0.36 BAD_NETWORK_NAME: \\\\10.10.0.36\\music";
    let diagnosis = diagnosed(&failed(&[Part::Options], 112, Some(&[theirs])), &films(), &with_login());
    assert_eq!((blamed(&diagnosis), diagnosis.kernel.len()), (Step::Login, 0));
    let near = "CIFS: VFS: \\\\10.10.0.355 BAD_NETWORK_NAME: \\\\10.10.0.355\\music";
    let diagnosis = diagnosed(&failed(&[Part::Options], 112, Some(&[near])), &films(), &with_login());
    assert_eq!(diagnosis.kernel.len(), 0);
}

#[test]
fn what_nobody_knows_has_its_name_and_the_kernels_words() {
    let said = "CIFS: VFS: something new";
    let diagnosis = diagnosed(&failed(&[Part::Options], 61, Some(&[said])), &films(), &with_login());
    assert_eq!(blamed(&diagnosis), Step::Mount);
    assert!(diagnosis.cause.unwrap().contains("E61"));
    assert_eq!(diagnosis.kernel, [said]);
}

#[test]
fn a_call_that_does_not_return_is_blamed_on_what_it_asks_for() {
    let parts = [Part::Options, Part::Create, Part::Mount, Part::Read, Part::Marker];
    let steps = [Step::Options, Step::Login, Step::Read, Step::Read, Step::Marker, Step::Write];
    for (count, step) in steps.into_iter().enumerate() {
        let mut trial = failed(&parts[..count], 0, None);
        trial.failed.as_mut().unwrap().ending = Ending::Hangs;
        let diagnosis = diagnosed(&trial, &films(), &with_login());
        assert_eq!(blamed(&diagnosis), step);
        assert_eq!(diagnosis.fix.unwrap().contains(".file may be left"), step == Step::Write);
    }
}

#[test]
fn a_marker_that_is_missing_is_no_missing_share() {
    let before = [Part::Options, Part::Create, Part::Mount, Part::Read];
    let marked = share("source = \"films\"\nmarker = \"here\"");
    assert_eq!(blamed(&diagnosed(&failed(&before, 2, None), &marked, &with_login())), Step::Marker);
}
