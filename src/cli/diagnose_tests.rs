//! Of `diagnose`.

#![expect(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::plan::diagnosis::NUMBERS;

/// The names are the kernel's own.
#[test]
fn the_numbers_of_the_table_have_their_names() {
    for number in NUMBERS {
        assert_eq!(format!("{:?}", nix::errno::Errno::from_raw(number.errno)), number.name);
    }
}

fn failed() -> Diagnosis {
    let mut diagnosis = Diagnosis::default();
    diagnosis.judge(Step::Name, Ok("10.10.0.35 is an address".to_owned()), None);
    let trouble = Trouble {
        step: Step::Port,
        message: "10.10.0.35:445 refuses connections".to_owned(),
        cause: "nobody listens".to_owned(),
        fix: "switch it on".to_owned(),
    };
    diagnosis.judge(Step::Port, Err(trouble), Some(Duration::from_millis(1)));
    diagnosis.skip_rest(&Step::OF_SERVER);
    diagnosis.kernel = vec!["CIFS: one".to_owned(), "CIFS: two".to_owned()];
    diagnosis
}

#[test]
fn people_read_the_steps_then_cause_and_fix() {
    assert_eq!(
        render(&failed(), Some(("films", State::Holding))),
        "ok       name         10.10.0.35 is an address\n\
         failed   port         10.10.0.35:445 refuses connections\n\
         \ncause: nobody listens\nwhat to do: switch it on\n\
         \nthe kernel's log:\n  CIFS: one\n  CIFS: two\n\
         \nfilms is holding in nasmount (`nasmount status films`)\n"
    );
}

#[test]
fn programs_read_every_step() {
    let diagnosis = failed();
    let document =
        Document { schema: SCHEMA, share: Some("films"), host: "10.10.0.35", state: None, diagnosis: &diagnosis };
    let json = serde_json::to_value(&document).unwrap();
    assert_eq!((&json["schema"], &json["share"], &json["state"]), (&1.into(), &"films".into(), &().into()));
    crate::cli::validate::conforms("diagnose", &json);
    let mut all = Diagnosis::default();
    all.skip_rest(&[Step::OF_SERVER.as_slice(), &Step::OF_SHARE].concat());
    for state in State::ALL {
        let document = Document { schema: SCHEMA, share: None, host: "a.b", state: Some(state), diagnosis: &all };
        crate::cli::validate::conforms("diagnose", &serde_json::to_value(&document).unwrap());
    }
    assert_eq!(json["steps"].as_array().unwrap().len(), 6, "{json}");
    let port = serde_json::json!({
        "step": "port", "outcome": "failed", "message": "10.10.0.35:445 refuses connections", "seconds": 0.001,
    });
    assert_eq!(json["steps"][1], port);
    assert_eq!((&json["cause"], &json["fix"]), (&"nobody listens".into(), &"switch it on".into()));
}

#[test]
fn a_name_with_a_dot_is_a_host_and_needs_no_configuration() {
    let nowhere = Some(Path::new("/nonexistent/nasmount.toml"));
    for host in ["tower.lan", "10.10.0.35", "fd00::35"] {
        assert!(matches!(find(nowhere, host), Ok(Asked::Host(found)) if found == host));
    }
    assert!(matches!(find(nowhere, "films"), Err(Exit::Usage)), "a share does");
    for host in ["localhost", "fe80::35%eth0"] {
        assert!(matches!(find(nowhere, host), Ok(Asked::Host(found)) if found == host));
    }
    assert!(matches!(find(nowhere, "//nas"), Ok(Asked::Host(found)) if found == "nas"));
    assert!(without_configuration("nas").contains("`nasmount diagnose //nas`"));
    assert!(!without_configuration("bob%secret").contains("secret"));
    for none in ["", " ", "1.2.3", "255.255.255.255", "fe80::35", "//[fe80::35%eth0]/films"] {
        assert!(matches!(find(nowhere, none), Err(Exit::Usage)), "{none}");
    }
}

#[test]
fn a_file_is_written_into_a_share_alone() {
    let nowhere = Some(Path::new("/nonexistent/nasmount.toml"));
    let arguments = |subject: &str| Arguments { subject: subject.to_owned(), write: true, json: false };
    assert_eq!(run(nowhere, &arguments("10.0.0.1")).unwrap(), Exit::Usage);
    let asked = find(nowhere, "//nas/films").unwrap_or_else(|_| panic!("it is a share"));
    assert_eq!(no_share(&asked), None);
}

#[test]
fn an_address_is_the_configured_share_or_one_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("nasmount.toml");
    let text = "[server.tower]\nhost = \"tower.lan\"\ncredentials = \"/etc/nasmount/tower.cred\"\n[share.films]\nserver = \"tower\"\n\
                source = \"my films\"\nmount_point = \"/mnt/films\"\n";
    #[expect(clippy::disallowed_methods, reason = "tests write files")]
    std::fs::write(&file, text).unwrap();
    let of = |address: &str| match find(Some(&file), address) {
        Ok(Asked::Share(both)) => (both.1.id.to_string(), both.1.source.clone(), both.0.credentials.clone()),
        _ => panic!("{address} is a share"),
    };
    let login = CredentialSource::File("/etc/nasmount/tower.cred".into());
    assert_eq!(of("smb://Tower.lan/My%20Films"), ("films".to_owned(), "my films".to_owned(), login.clone()));
    assert_eq!(of(r"\\tower.lan\music\new"), (UNCONFIGURED.to_owned(), "music/new".to_owned(), login));
    assert_eq!(of("//attic/music"), (UNCONFIGURED.to_owned(), "music".to_owned(), CredentialSource::Guest));
    assert!(matches!(find(Some(&file), "smb://attic"), Ok(Asked::Host(host)) if host == "attic"));
    assert!(matches!(find(Some(&file), "smb://bob@attic/music"), Err(Exit::Usage)));
    assert_eq!(of("/mnt/films/").0, "films");
    for path in ["/mnt/films/new", "/mnt/other", "./films"] {
        assert!(matches!(find(Some(&file), path), Err(Exit::Usage)), "{path}");
    }
    assert!(matches!(find(Some(&file), "tower"), Ok(Asked::Server(server)) if server.host == "tower.lan"));
    assert!(matches!(find(Some(&file), "flims"), Err(Exit::NoSuchShare)));
}

#[test]
fn a_credentials_file_that_cannot_be_used_is_a_step_that_failed() {
    let Ok(Asked::Share(both)) = of_address(Some(Path::new("/nonexistent/nasmount.toml")), "nas", "films") else {
        panic!("it is a share");
    };
    let mut share = both.1;
    let of = |credentials: &CredentialSource, share: &ShareSettings| {
        login(&Subject { share, credentials, address: IpAddr::from([10, 0, 0, 1]) })
    };
    let said = |share: &ShareSettings| of(&CredentialSource::Guest, share).map(|(_, said)| said).unwrap();
    assert_eq!(said(&share), "none are configured: tried as a guest");
    share.options.insert("sec".to_owned(), OptionValue::Value("krb5i".to_owned()));
    assert_eq!(said(&share), "none are configured: a Kerberos ticket is used");
    let login = |credentials| of(&credentials, &share);
    let trouble = login(CredentialSource::File("/nonexistent/tower.cred".into())).unwrap_err();
    assert_eq!(trouble.step, Step::Credentials);
    assert!(trouble.fix.contains("chmod 600"), "{trouble:?}");
    let trouble = login(CredentialSource::Systemd("no-such-credential".to_owned())).unwrap_err();
    assert!(trouble.fix.contains("LoadCredential="), "{trouble:?}");
}
