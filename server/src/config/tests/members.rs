//! Who is in the ensemble, and what the own line says.

use super::*;

#[test]
fn the_line_of_this_server_can_say_where_clients_connect() {
    let text = "initLimit=5\nsyncLimit=2\nserver.1=a:1:2;127.0.0.1:77\nserver.2=b:1:2";
    let config = load_with_id(text, Some("1")).unwrap();
    let host = Some("127.0.0.1".parse().unwrap());
    assert_eq!(config.listen, Some(Listen { host, port: 77 }));
}

#[test]
fn members_may_stand_in_a_file_of_their_own() {
    let folder = Folder::new();
    let dynamic = folder.write("zoo.cfg.dynamic", "server.1=a:1:2;2181\n");
    let head = format!("dataDir={}\nclientPort=0\n", folder.0.path().display());
    let text = format!("{head}dynamicConfigFile={}\n", dynamic.display());
    let sources =
        |text: &str| Sources { file: Some(folder.write("zoo.cfg", text)), ..Sources::default() };
    assert_eq!(Config::load(&sources(&text)).unwrap().ensemble.members.len(), 1);
    let both = Config::load(&sources(&format!("{text}server.2=b:1:2"))).unwrap_err();
    assert!(both.to_string().contains("line 4: server.2=b:1:2: must stand in the dynamicConfig"));
}

#[test]
fn the_version_of_the_members_is_the_end_of_their_files_name() {
    let folder = Folder::new();
    let version = |name: &str, members: &str, line: &str| {
        let dynamic = folder.write(name, members);
        let head = format!("dataDir={}\nclientPort=0", folder.0.path().display());
        let text = format!("{head}\ndynamicConfigFile={}\n{line}", dynamic.display());
        let sources = Sources { file: Some(folder.write("zoo.cfg", &text)), ..Sources::default() };
        let config = Config::load(&sources).map_err(|error| error.to_string())?;
        let notes: Vec<_> = config.notes.into_iter().map(|note| note.text).collect();
        Ok::<_, String>((config.ensemble.version, notes.concat()))
    };
    let members = "server.1=a:1:2;2181";
    assert_eq!(version("zoo.cfg.dynamic.10000001a", members, "").unwrap().0, 0x1_0000_001a);
    assert_eq!(version("zoo.cfg.dynamic", members, "").unwrap().0, 0);
    let (zero, notes) = version("zoo.cfg.dynamic", members, "version=7").unwrap();
    assert_eq!(zero, 0);
    assert!(notes.contains("line 4: version=7 has no effect: the end of the dynamic"), "{notes}");
    let inside = version("zoo.cfg.dynamic.7", &format!("{members}\nversion=7"), "").unwrap_err();
    assert!(inside.contains("line 2: version=7: must not stand there: the end of"), "{inside}");
    assert_eq!(load("clientPort=0\nversion=1a").unwrap().ensemble.version, 0x1a);
}

#[test]
fn large_server_ids_do_not_go_with_extended_types() {
    let alone = "clientPort=0\nextendedTypesEnabled=true";
    assert_eq!(load_with_id(alone, Some("255")).unwrap().member_id(), None);
    let member = format!("{alone}\nserver.255=a:1:2\nserver.1=b:1:2");
    let error = load_with_id(&member, Some("255")).unwrap_err();
    assert!(error.contains("needs server ids of at most 254, not 255"), "{error}");
}

#[test]
fn two_servers_at_one_address_and_one_without_a_number_are_errors_that_name_the_line() {
    let text = "initLimit=1\nsyncLimit=1\nserver.1=a:1:2\nserver.2=b:2:1\nserver.3=a:2:3";
    let text = format!("{text}\nserver.x=c:1:2\nserver.principal=zk");
    let error = load_with_id(&format!("clientPort=0\n{text}"), Some("1")).unwrap_err();
    let expect = [
        "FOLDER/zoo.cfg, line 8: server.x=c:1:2: a number must follow the dot in the key",
        "FOLDER/zoo.cfg, line 7: server.3=a:2:3: a:2 is that of server.1 already \
         (FOLDER/zoo.cfg, line 5)",
    ];
    assert_eq!(error.lines().collect::<Vec<_>>(), expect);
}

#[test]
fn where_clients_connect_is_what_the_line_of_this_server_says() {
    let with = |client: &str, address: &str| {
        let members = format!("server.1=127.0.0.1:1:2;{client}\nserver.2=b:1:2;2181");
        let own = format!("{address}\ninitLimit=1\nsyncLimit=1\n{members}");
        load_with_id(&own, Some("1"))
    };
    let listens = |client, address| with(client, address).unwrap().listen.unwrap().host;
    let local = Some("127.0.0.1".parse().unwrap());
    assert_eq!(listens("127.0.0.1:2181", "clientPort=2181"), local, "only there");
    assert_eq!(listens("127.0.0.1:2181", "clientPort=2181\nclientPortAddress=0.0.0.0"), local);
    assert_eq!(listens("127.0.0.1:2181", "clientPort=2181\nclientPortAddress=127.0.0.1"), local);
    assert_eq!(listens("2181", "clientPort=2181"), None, "everywhere, in both families");
    assert_eq!(listens("2181", ""), None);
    let error = with("127.0.0.1:2181", "clientPort=2181\nclientPortAddress=127.0.0.2").unwrap_err();
    assert!(error.contains("line 3") && error.contains("says 127.0.0.1"), "{error}");
}

#[test]
fn the_command_line_can_name_the_file_of_the_members() {
    let folder = Folder::new();
    let dynamic = folder.write("zoo.cfg.dynamic", "server.1=a:1:2;2181\n");
    let text = format!("dataDir={}\nclientPort=0\n", folder.0.path().display());
    let file = Some(folder.write("zoo.cfg", &text));
    let load = |path: &Path| {
        let (option, key) = ("-D".to_owned(), "dynamicConfigFile".to_owned());
        let value = path.display().to_string();
        let arguments = vec![Argument { option, key, value }];
        Config::load(&Sources { file: file.clone(), arguments, ..Sources::default() })
    };
    assert_eq!(load(&dynamic).unwrap().ensemble.members.len(), 1);
    let missing = load(&folder.0.path().join("other")).unwrap_err();
    assert!(matches!(missing, ConfigError::Read { .. }), "{missing}");
    let dynamic = folder.write("zoo.cfg.dynamic", "server.1=a:1:2;2181\nclientPort=1\n");
    let stranger = load(&dynamic).unwrap_err().to_string();
    assert!(
        stranger.contains("line 2: clientPort=1: must not stand in the dynamicC"),
        "{stranger}"
    );
}

#[test]
fn one_voter_may_have_observers_where_it_is_to_be_an_ensemble() {
    let text = "clientPort=0\ninitLimit=1\nsyncLimit=1\nserver.1=a:1:2\nserver.2=b:1:2:observer";
    let alone = load_with_id(text, Some("1")).unwrap_err();
    assert!(alone.contains("not enough servers that vote"), "{alone}");
    let ensemble = format!("{text}\nstandaloneEnabled=false\npeerType=Participant");
    assert!(load_with_id(&ensemble, Some("1")).unwrap().is_distributed());
    let is_observer = |id| load_with_id(&ensemble, Some(id)).unwrap().member.is_observer;
    assert_eq!(["1", "2"].map(is_observer), [false, true]);
}

#[test]
fn groups_and_weights_are_read_as_javas_are_or_refused() {
    let load = |weight: &str| {
        let text = "clientPort=0\ninitLimit=1\nsyncLimit=1\nserver.1=a:1:2\nserver.2=b:1:2";
        load_with_id(&format!("{text}\ngroup.1=1:2:\nweight.1={weight}"), Some("1"))
    };
    let ensemble = load("7").unwrap().ensemble;
    assert_eq!((&ensemble.groups[&1][..], ensemble.weights[&1]), (&[1, 2][..], 7));
    for weight in ["5000000000", "-1"] {
        let error = load(weight).unwrap_err();
        assert!(error.contains("must be a whole number from 0 to 4294967295"), "{error}");
    }
}
