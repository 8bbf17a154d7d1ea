//! The client's side: variables, env files, extends, include, contents, profiles.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use jaco_core::error::ErrorCode;
use jaco_core::manifest::spec::{FileKind, MountSource};
use jaco_core::manifest::{Bundle, parse, redacted};
use support::{JACO, Project, lines, service};

const WITH_ENV: &str = "deployment: shop\nenvironment: .env\n";

fn environment(project: &Project, jaco: &str, compose: &str) -> String {
    let environment = project.web(jaco, compose).container.environment;
    let pairs: Vec<String> = environment
        .iter()
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    pairs.join(" ")
}

#[test]
fn variables_come_from_the_environment_file_only() {
    let project = Project::default()
        .file(".env", "TAG=1.2\nN=3\n")
        .variable("HOST", "leaked");
    let compose = service(
        "labels: {tag: $TAG, host: '<$HOST>', lit: $$TAG, $TAG: key}\ndeploy: {replicas: $N}",
    );
    let web = project.web(WITH_ENV, &compose);
    assert_eq!(web.container.labels["tag"], "1.2");
    assert_eq!(web.container.labels["host"], "<>");
    assert_eq!(web.container.labels["lit"], "$TAG");
    assert_eq!(web.container.labels["$TAG"], "key");
    assert_eq!(web.replicas, 3);
    let notices = project.resolve(WITH_ENV, &compose).notices;
    assert_eq!(
        notices[0].message,
        "variable \"HOST\" is not set; it becomes empty"
    );
    assert_eq!(notices[0].path, "services.web.labels.host");
}

#[test]
fn what_a_variable_brings_is_text() {
    let project = Project::default().file(".env", "NULL=~\nEMPTY=\nLIST=[a]\n");
    let keys = "environment: {A: $NULL, B: $EMPTY, C: $LIST, D: '${X:-no}'}\ntty: ${TTY:-yes}";
    assert_eq!(
        environment(&project, WITH_ENV, &service(keys)),
        "A=~ B= C=[a] D=no"
    );
}

#[test]
fn regression_interpolation_errors_name_line_and_column_of_the_original_file() {
    let compose = "services:\n  web:\n    image: \"nginx:${TAG:?set it}\"\n    command: >\n      \
    one\n      \
                   two $$ ${A\n    user: ${U?}\n    cpus: ${C:?c}\n";
    assert_eq!(
        Project::default().refused(JACO, compose),
        "compose.yaml:3:19 validation_failed services.web.image: interpolate compose.yaml: \
         interpolate ${VAR} at line 3 col 19: required variable TAG is missing a value: set it\n\
         compose.yaml:6:14 validation_failed services.web.command: interpolate compose.yaml: \
         interpolate ${VAR} at line 6 col 14: invalid template \"one two $$ ${A\n\"\n\
         compose.yaml:7:11 validation_failed services.web.user: interpolate compose.yaml: \
         interpolate ${VAR} at line 7 col 11: required variable U is missing a value\n\
         compose.yaml:8:11 validation_failed services.web.cpus: interpolate compose.yaml: \
         interpolate ${VAR} at line 8 col 11: required variable C is missing a value: c"
    );
}

#[test]
fn regression_missing_env_file() {
    let compose = service("cpus: ${CPUS}\nfoo: 1\nenv_file: web.env");
    assert_eq!(
        Project::default().refused(WITH_ENV, &compose),
        "jaco.yaml:2:14 validation_failed environment: \
         load environment file .env: no such file or directory\n\
         compose.yaml:5:5 validation_failed services.web.foo: unknown key \"foo\" at \
         services.web.foo\n\
         compose.yaml:6:15 validation_failed services.web.env_file: \
         load environment file web.env: no such file or directory"
    );
    let project = Project::default().file(".env", "A=1\n='secret'\n");
    assert_eq!(
        project.refused(WITH_ENV, &service("")),
        "jaco.yaml:2:14 validation_failed environment: \
         load environment file .env: line 2: a line starts without a variable name"
    );
}

#[test]
fn env_files_have_an_order() {
    let project = Project::default()
        .file(".env", "X=x\n")
        .file("one.env", "A=1\nB=1\nC=1\nD=$X\n")
        .file("two.env", "B=2\nC=2\nEMPTY\n")
        .file("raw.env", "R='$X'\n");
    let keys = "env_file:\n- one.env\n- {path: two.env}\n- {path: none.env, required: false}\n\
                - {path: raw.env, format: raw}\n";
    let expect = "A=1 B=2 C=own D=x EMPTY= R='$X'";
    let compose = service(&format!("{keys}environment: {{C: own}}"));
    assert_eq!(environment(&project, WITH_ENV, &compose), expect);
    let compose = service(&format!("{keys}environment: [C=own]"));
    assert_eq!(environment(&project, WITH_ENV, &compose), expect);
    let compose = service("env_file: one.env\nenvironment: [C]");
    assert_eq!(environment(&project, WITH_ENV, &compose), "A=1 B=1 C= D=x");
}

#[test]
fn regression_an_old_client_sends_env_file() {
    let bundle = Bundle {
        jaco: JACO.to_owned(),
        compose: service("env_file: web.env"),
        ..Bundle::default()
    };
    let report = parse(&bundle).unwrap_err();
    assert_eq!(report.violations[0].code, ErrorCode::EnvFileUnresolved);
    assert_eq!(
        lines(&report),
        "compose.yaml:4:15 env_file_unresolved services.web.env_file: \
         env_file reached the daemon unresolved; the client must read it"
    );
}

#[test]
fn a_daemon_reads_nothing_that_the_bundle_does_not_carry() {
    let refused = |compose: &str, expect: &str| {
        let mut bundle = Bundle {
            jaco: JACO.to_owned(),
            compose: compose.to_owned(),
            ..Bundle::default()
        };
        bundle.inactive.insert("other".to_owned());
        let report = parse(&bundle).unwrap_err();
        assert!(lines(&report).contains(expect), "{}", lines(&report));
    };
    refused(
        "services: {web: {image: w, extends: db}}",
        "extends reached the daemon unresolved",
    );
    refused(
        "include: [x.yaml]\nservices: {web: {image: w}}",
        "unresolved key \"include\"",
    );
    refused(
        "services: {web: {image: w, volumes: ['./x:/x:ro']}}",
        "is not in the bundle",
    );
    refused(
        "services: {web: {image: w, secrets: [s]}}\nsecrets: {s: {file: /etc/shadow}}",
        "\"/etc/shadow\" is not in the bundle",
    );
}

#[test]
fn a_tampered_bundle_is_refused() {
    let project = Project::default().file("s.txt", "hunter2");
    let compose = "services: {web: {image: w, secrets: [s]}}\nsecrets: {s: {file: s.txt}}\n";
    let bundle = project.resolve(JACO, compose).bundle.unwrap();

    let mut other = bundle.clone();
    other.contents.values_mut().next().unwrap().bytes = b"other".to_vec();
    assert!(lines(&parse(&other).unwrap_err()).contains("does not have that hash"));

    let mut other = bundle.clone();
    other.contents.clear();
    assert!(lines(&parse(&other).unwrap_err()).contains("its content is not in the bundle"));

    let mut other = bundle;
    other.files.get_mut("s.txt").unwrap()[0].path = "../../etc/cron.d/x".to_owned();
    assert!(lines(&parse(&other).unwrap_err()).contains("leaves its directory"));
}

#[test]
fn secrets_and_configs_travel_and_are_hashed() {
    let project = Project::default()
        .file("deploy/s.txt", "hunter2")
        .file("deploy/c.conf", "conf")
        .variable("TOKEN", "t0ken");
    let project = Project {
        directory: "deploy/".to_owned(),
        ..project
    };
    let compose = "services:\n  web:\n    image: w\n    secrets: [s, {source: t, target: tok, \
                   uid: '1000', gid: 5, mode: 0440}]\n    configs: [c, {source: i, target: \
                   /etc/i.conf}]\nsecrets:\n  s: {file: ./s.txt}\n  t: {environment: TOKEN}\n\
                   configs:\n  c: {file: c.conf}\n  i: {content: 'inline $$x'}\n";
    let spec = project.spec(JACO, compose);
    let mounts: Vec<String> = spec.services["web"]
        .container
        .mounts
        .iter()
        .map(|mount| {
            let MountSource::Files(tree) = &mount.source else {
                panic!("{mount:?}")
            };
            let [file] = &tree.files[..] else {
                panic!("{tree:?}")
            };
            let text = String::from_utf8(spec.contents[&file.content].bytes.clone()).unwrap();
            let kind = if tree.kind == FileKind::Secret {
                "secret"
            } else {
                "config"
            };
            let (mode, uid, gid) = (file.mode, file.uid, file.gid);
            format!("{kind} {} {mode:o} {uid}:{gid} {text}", mount.target)
        })
        .collect();
    assert_eq!(
        mounts,
        [
            "config /c 444 0:0 conf",
            "config /etc/i.conf 444 0:0 inline $x",
            "secret /run/secrets/s 444 0:0 hunter2",
            "secret /run/secrets/tok 440 1000:5 t0ken",
        ]
    );
    let resolved = project.resolve(JACO, compose);
    let bundle = resolved.bundle.unwrap();
    let shown = redacted(&bundle).to_string();
    for secret in ["hunter2", "t0ken", "inline"] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(!format!("{bundle:?}{:?}", resolved.spec).contains(secret));
    }
    let other = project
        .clone()
        .file("deploy/s.txt", "changed")
        .spec(JACO, compose);
    assert_ne!(
        other.services["web"].spec_hash,
        spec.services["web"].spec_hash
    );
}

#[test]
fn small_read_only_trees_travel_with_their_modes() {
    let project = Project::default()
        .file("conf/a.conf", "a")
        .file_with_mode("conf/run/b.sh", 0o755, b"b".to_vec())
        .file("one.txt", "1");
    let compose = service(
        "volumes:\n- ./conf:/etc/conf:ro\n\
         - {type: bind, source: one.txt, target: /one, read_only: true}",
    );
    let web = project.web(JACO, &compose);
    let files: Vec<String> = web
        .container
        .mounts
        .iter()
        .flat_map(|mount| {
            let MountSource::Files(tree) = &mount.source else {
                panic!("{mount:?}")
            };
            let shown = |file: &jaco_core::manifest::spec::FileEntry| {
                format!("{} {:?} {:o}", mount.target, file.path, file.mode)
            };
            tree.files.iter().map(shown).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(
        files,
        [
            "/etc/conf \"a.conf\" 644",
            "/etc/conf \"run/b.sh\" 755",
            "/one \"\" 644"
        ]
    );
    assert!(!web.is_stateful());
}

#[test]
fn profiles_switch_services_on() {
    let compose = "services:\n  web: {image: w, depends_on: {debug: {condition: service_started, \
                   required: false}}}\n  debug: {image: d, profiles: [dev], env_file: none.env}\n";
    let jaco = "deployment: shop\nservices: [{name: debug, replicas: 2}]\n";
    let off = Project::default().spec(jaco, compose);
    assert_eq!(off.services.len(), 1);
    let on = Project::default()
        .profile("dev")
        .file("none.env", "A=1")
        .spec(jaco, compose);
    assert_eq!(on.services["debug"].replicas, 2);
    let jaco = "deployment: shop\nroutes: [{domain: a.b, service: debug, port: 1}]\n";
    assert_eq!(
        Project::default().refused(jaco, compose),
        "jaco.yaml:2:33 unknown_service routes[0].service: \
         service \"debug\" is in a profile that is off; use --profile"
    );
}

#[test]
fn standard_input_has_no_base_directory() {
    let project = Project {
        stdin: true,
        ..Project::default().file("x.yaml", "services: {}")
    };
    let compose = "include: [x.yaml]\nservices:\n  web:\n    image: w\n    env_file: a.env\n    \
                   extends: base\n    secrets: [s]\n    volumes: ['./c:/c:ro']\n  base: {image: \
                        b}\n\
                   secrets:\n  s: {file: s.txt}\n";
    let needs = "needs a base directory, and a compose file from standard input has none";
    assert_eq!(
        project.refused(JACO, compose),
        format!(
            "compose.yaml:1:10 validation_failed include: include {needs}\n\
             compose.yaml:5:15 validation_failed services.web.env_file: \
             services.web.env_file {needs}\n\
             compose.yaml:6:14 validation_failed services.web.extends: \
             services.web.extends {needs}\n\
             compose.yaml:8:15 validation_failed services.web.volumes[0]: bind \"./c\": a compose \
             file from standard input has no base directory\n\
             compose.yaml:11:13 validation_failed secrets.s.file: secrets.s.file {needs}"
        )
    );
    project.spec(JACO, "services: {web: {image: w}}\n");
}

#[test]
fn extends_lays_a_service_over_its_base() {
    let project = Project::default()
        .file(".env", "TAG=7\n")
        .file("base/app.env", "FROM=file\n")
        .file(
            "base/app.yaml",
            "services:\n  unused: {image: '${NOPE:?never asked}'}\n  app:\n    extends: root\n    \
         image: app:$TAG\n    command: [a, b]\n    env_file: app.env\n    environment: [A=base, \
         B=base]\n    ports: ['9000:1']\n    volumes: ['data:/data', '/old:/x']\n    networks: \
         [front]\n  root: {image: r, labels: {l: root}, cap_add: [ONE]}\n",
        );
    let compose = "services:\n  web:\n    extends: {file: base/app.yaml, service: app}\n    \
                   command: [c]\n    environment: {B: own}\n    ports: ['9001:1']\n    cap_add: \
                   [TWO]\n    volumes: ['/new:/x']\n    networks: {front: {aliases: [w]}}\n  \
                   two: {extends: web, command: !reset null, ports: !override ['9002:2']}\n\
                   volumes: {data: }\nnetworks: {front: }\n";
    // `two` must not clash with `web`, whose ports it inherits unless it overrides them.
    let spec = project.spec(WITH_ENV, compose);
    let (web, two) = (&spec.services["web"], &spec.services["two"]);
    assert_eq!(web.container.image, "app:7");
    assert_eq!(web.container.command.as_deref().unwrap(), ["c"]);
    assert_eq!(two.container.command, None);
    let environment: Vec<&str> = web
        .container
        .environment
        .values()
        .map(String::as_str)
        .collect();
    assert_eq!(environment, ["base", "own", "file"]);
    let hosts: Vec<u16> = web.ports.iter().map(|port| port.host).collect();
    assert_eq!(hosts, [9000, 9001]);
    assert_eq!(two.ports[0].host, 9002);
    assert_eq!(web.container.cap_add, ["ONE", "TWO"]);
    assert_eq!(web.container.labels["l"], "root");
    let targets: Vec<&str> = web.container.mounts.iter().map(|m| &*m.target).collect();
    assert_eq!(targets, ["/data", "/x"]);
    assert_eq!(web.networks["front"].aliases, ["w"]);
}

#[test]
fn extends_can_be_wrong() {
    let project = Project::default().file(
        "other.yaml",
        "services: {a: {extends: {file: \
                                                         other.yaml, service: a}, image: x}}",
    );
    let compose = "services:\n  one: {image: w, extends: two}\n  two: {image: w, extends: one}\n  \
                   three: {image: w, extends: none}\n  four: {image: w, extends: {file: none.yaml, \
                   service: x}}\n  five: {extends: {file: other.yaml, service: a}}\n";
    assert_eq!(
        project.refused(JACO, compose),
        "compose.yaml:2:28 validation_failed services.one.extends: \
         extends: service \"two\" extends itself in a circle\n\
         compose.yaml:3:28 validation_failed services.two.extends: \
         extends: service \"one\" extends itself in a circle\n\
         compose.yaml:4:30 validation_failed services.three.extends: \
         extends: service \"none\" is not in compose.yaml\n\
         compose.yaml:5:29 validation_failed services.four.extends: \
         load compose file none.yaml: no such file or directory\n\
         other.yaml:1:25 validation_failed services.a.extends: \
         extends: service \"a\" extends itself in a circle"
    );
}

#[test]
fn include_brings_sections_and_moves_paths() {
    let project = Project::default()
        .file(".env", "TAG=1\n")
        .file("top/sub/own.env", "TAG=2\nONLY=o\n")
        .file("top/sub/db.env", "DB=1\n")
        .file("top/sub/deep/s.txt", "s")
        .file(
            "top/sub/db.yaml",
            "include: [deep/more.yaml]\nservices:\n  db: {image: 'db:$TAG-$ONLY', env_file: \
             db.env}\nvolumes: {data: }\n",
        )
        .file(
            "top/sub/deep/more.yaml",
            "services: {more: {image: m, secrets: [s]}}\nsecrets: {s: {file: ./s.txt}}\n",
        )
        .file("top/.env", "TAG=1\n");
    let project = Project {
        directory: "top/".to_owned(),
        ..project
    };
    let compose = "include:\n- {path: sub/db.yaml, env_file: sub/own.env}\nservices:\n  web: \
    {image: \
                   w, depends_on: [db, more]}\n";
    let spec = project.spec(WITH_ENV, compose);
    assert_eq!(spec.services["db"].container.image, "db:1-o");
    assert_eq!(spec.services["db"].container.environment["DB"], "1");
    assert_eq!(spec.contents.len(), 1);
    let keys = project.resolve(WITH_ENV, compose).keys;
    assert!(keys.iter().any(|key| key.path == "services.more.secrets"));
}

#[test]
fn include_can_be_wrong() {
    let project = Project::default()
        .file("self.yaml", "include: [self.yaml]\n")
        .file("same.yaml", "services:\n  web: {image: other}\n")
        .file("bad.yaml", "services:\n  bad: {image: b, foo: 1}\n");
    let compose =
        "include: [self.yaml, same.yaml, bad.yaml, none.yaml]\nservices: {web: {image: w}}";
    assert_eq!(
        project.refused(JACO, compose),
        "compose.yaml:1:43 validation_failed include[3]: \
         load compose file none.yaml: no such file or directory\n\
         self.yaml:1:11 validation_failed include[0]: include: self.yaml includes itself in a \
         circle\n\
         same.yaml:2:3 validation_failed services.web: \
         services.web is also declared by compose.yaml, which includes this\n\
         bad.yaml:2:19 validation_failed services.bad.foo: \
         unknown key \"foo\" at services.bad.foo"
    );
}
