//! Every refusal inside a service (spec 02) with its code, message, line and column.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use support::{JACO, Project, check_compose, check_service};

#[test]
fn ports_are_checked() {
    check_service(
        "ports:\n- \"80:80\"\n- \"8443:443\"\n- 443:8443/udp\n- {target: 8080, published: 80}",
        &[
            "compose.yaml:5:7 reserved_port services.web.ports[0]: service \"web\" publishes \
             reserved host port 80 (entry \"80:80\"); 80 and 443 belong to JACO's HTTP/S ingress",
            "compose.yaml:7:7 reserved_port services.web.ports[2]: service \"web\" publishes \
             reserved host port 443 (entry \"443:8443/udp\"); 80 and 443 belong to JACO's HTTP/S \
             ingress",
            "compose.yaml:8:7 reserved_port services.web.ports[3]: service \"web\" publishes \
             reserved host port 80 (entry \"80:8080\"); 80 and 443 belong to JACO's HTTP/S ingress",
        ],
    );
    check_service(
        "ports: ['79-81:79-81']",
        &[
            "compose.yaml:4:13 reserved_port services.web.ports[0]: service \"web\" publishes \
           reserved host port 80 (entry \"79-81:79-81\"); 80 and 443 belong to JACO's HTTP/S \
           ingress",
        ],
    );
    check_service(
        "ports: ['127.0.0.1:8080:80']",
        &[
            "compose.yaml:4:13 validation_failed services.web.ports[0]: port \"127.0.0.1:8080:80\" \
           names a host address; JACO opens a published port on every node",
        ],
    );
    check_service(
        "ports: ['8080:80/sctp', '0:80', '1-2:3', 'a:b', ':80', '70000:1']",
        &[
            "compose.yaml:4:13 validation_failed services.web.ports[0]: \
             protocol \"sctp\" must be tcp or udp",
            "compose.yaml:4:29 validation_failed services.web.ports[1]: port \"0:80\" is not \
             [HOST:]CONTAINER[/PROTOCOL] with ports from 1 to 65535",
            "compose.yaml:4:37 validation_failed services.web.ports[2]: \
             port ranges of \"1-2:3\" differ in length",
            "compose.yaml:4:46 validation_failed services.web.ports[3]: port \"a:b\" is not \
             [HOST:]CONTAINER[/PROTOCOL] with ports from 1 to 65535",
            "compose.yaml:4:53 validation_failed services.web.ports[4]: port \":80\" is not \
             [HOST:]CONTAINER[/PROTOCOL] with ports from 1 to 65535",
            "compose.yaml:4:60 validation_failed services.web.ports[5]: port \"70000:1\" is not \
             [HOST:]CONTAINER[/PROTOCOL] with ports from 1 to 65535",
        ],
    );
    check_service(
        "ports: [{target: 80, host_ip: 10.0.0.1}, {published: 8080}]",
        &[
            "compose.yaml:4:35 validation_failed services.web.ports[0].host_ip: port \"10.0.0.1\" \
             names a host address; JACO opens a published port on every node",
            "compose.yaml:4:46 validation_failed services.web.ports[1].target: \
             services.web.ports[1].target is missing",
        ],
    );
}

#[test]
fn the_proxy_protocol_is_version_2_and_for_tcp() {
    check_service(
        "ports: [{target: 1, published: 9, x-jaco-proxy-protocol: v1}, \
         {target: 1, published: 8, protocol: udp, x-jaco-proxy-protocol: v2}]",
        &[
            "compose.yaml:4:62 validation_failed services.web.ports[0].x-jaco-proxy-protocol: \
             services.web.ports[0].x-jaco-proxy-protocol must be one of v2, not \"v1\"",
            "compose.yaml:4:131 validation_failed services.web.ports[1].x-jaco-proxy-protocol: \
             the PROXY protocol is for TCP ports",
        ],
    );
}

#[test]
fn regression_one_host_port_has_one_owner() {
    check_compose(
        "services:\n  a: {image: w, ports: ['54:53/udp', '9000:1']}\n  \
         b: {image: w, ports: ['54:53', '9000-9001:1-2']}\n",
        &[
            "compose.yaml:3:34 port_conflict services.b.ports[1]: service \"b\" publishes host \
            port \
           9000/tcp, which service \"a\" already publishes",
        ],
    );
}

#[test]
fn networks_and_modes_are_checked() {
    check_compose(
        "services:\n  web: {image: w, networks: [front, {}]}\nnetworks: {back: }\n",
        &[
            "compose.yaml:2:30 unknown_network services.web.networks[0]: \
             network \"front\" is not declared; declared networks: back",
            "compose.yaml:2:37 validation_failed services.web.networks[1]: \
             services.web.networks[1] must be a string",
        ],
    );
    for mode in ["host", "bridge", "container:x", "service:", "other"] {
        let expect = format!(
            "compose.yaml:4:19 validation_failed services.web.network_mode: network_mode {mode:?} \
             is not supported; leave it out, or use none or service:<name>"
        );
        check_service(&format!("network_mode: {mode:?}"), &[&expect]);
    }
    check_service(
        "network_mode: service:db",
        &[
            "compose.yaml:4:19 unknown_service services.web.network_mode: \
           service \"db\" is not declared; declared services: web",
        ],
    );
    check_service(
        "network_mode: none\nports: ['9:9']\nnetworks: [default]",
        &[
            "compose.yaml:4:19 validation_failed services.web.network_mode: \
             service \"web\" sets both network_mode and networks",
            "compose.yaml:4:19 validation_failed services.web.network_mode: \
             service \"web\" sets network_mode and so cannot publish ports",
        ],
    );
    check_compose(
        "services:\n  web: {image: w, networks: {n: {ipv4_address: 10.0.0.2}}}\n\
         networks: {n: {external: true}}\n",
        &[
            "compose.yaml:2:48 validation_failed services.web.networks.n.ipv4_address: \
             services.web.networks.n.ipv4_address is not supported: JACO assigns addresses",
            "compose.yaml:3:26 validation_failed networks.n.external: \
             an external network is not supported: JACO makes each network",
        ],
    );
}

#[test]
fn dependencies_are_checked() {
    check_compose(
        "services:\n  a: {image: w, depends_on: [b, a, c]}\n  \
         b: {image: w, depends_on: {a: {condition: service_healthy}}}\n",
        &[
            "compose.yaml:2:30 validation_failed services.a.depends_on[0]: \
             services wait for each other in a circle: a -> b -> a",
            "compose.yaml:2:33 validation_failed services.a.depends_on[1]: \
             service \"a\" depends on itself",
            "compose.yaml:2:36 unknown_service services.a.depends_on[2]: \
             service \"c\" is not declared; declared services: a, b",
        ],
    );
    check_compose(
        "services:\n  a: {image: w, network_mode: 'service:b'}\n  \
         b: {image: w, depends_on: [a]}\n  c: {image: w, depends_on: [a]}\n",
        &[
            "compose.yaml:2:31 validation_failed services.a.network_mode: \
           services wait for each other in a circle: a -> b -> a",
        ],
    );
    check_service(
        "depends_on: {web2: {condition: service_ready}}",
        &[
            "compose.yaml:4:18 unknown_service services.web.depends_on.web2: \
             service \"web2\" is not declared; declared services: web",
            "compose.yaml:4:36 validation_failed services.web.depends_on.web2.condition: \
             services.web.depends_on.web2.condition must be one of service_started, \
             service_healthy, service_completed_successfully, not \"service_ready\"",
        ],
    );
}

#[test]
fn volumes_are_checked() {
    check_service(
        "volumes:\n- data:/data\n- ./src:/src\n- data:relative\n- ~/x:/x:ro\n- a:/b:c:d\n\
         - {type: npipe, target: /p}\n- /h:/one\n- /h:/one/",
        &[
            "compose.yaml:5:7 validation_failed services.web.volumes[0]: \
             service \"web\" uses volume \"data\", which is not declared; declared volumes: none",
            "compose.yaml:6:7 validation_failed services.web.volumes[1]: service \"web\" mounts \
             \"./src\" writable; a node has no project directory, so a relative bind must be \
             read-only and at most 1 MiB: use a volume, an absolute path, or `:ro`",
            "compose.yaml:7:7 validation_failed services.web.volumes[2]: \
             service \"web\" uses volume \"data\", which is not declared; declared volumes: none",
            "compose.yaml:8:7 validation_failed services.web.volumes[3]: \
             bind \"~/x\": a node has no home directory to mount",
            "compose.yaml:9:7 validation_failed services.web.volumes[4]: \
             volume \"a:/b:c:d\" has too many colons",
            "compose.yaml:10:14 validation_failed services.web.volumes[5].type: \
             services.web.volumes[5].type must be one of volume, bind, tmpfs, not \"npipe\"",
            "compose.yaml:12:7 validation_failed services.web.volumes[7]: \
             service \"web\" mounts two things at \"/one\"",
        ],
    );
    check_service(
        "volumes: ['/h:rel', '/h:/t:wat']",
        &[
            "compose.yaml:4:15 validation_failed services.web.volumes[0]: \
             mount target \"rel\" must be an absolute path",
            "compose.yaml:4:25 validation_failed services.web.volumes[1]: \
             unknown volume option \"wat\"",
        ],
    );
}

#[test]
fn relative_binds_have_a_limit() {
    let project = Project::default()
        .file_with_mode("big/a", 0o644, vec![0; 600 * 1024])
        .file_with_mode("big/b", 0o644, vec![0; 600 * 1024]);
    let compose = support::service("volumes: ['./big:/big:ro', './none:/none:ro']");
    assert_eq!(
        project.refused(JACO, &compose),
        "compose.yaml:4:15 validation_failed services.web.volumes[0]: bind \"./big\": it holds \
         1228800 bytes, more than the 1 MiB that may travel along\n\
         compose.yaml:4:32 validation_failed services.web.volumes[1]: bind \"./none\": no such \
         file or directory"
    );
}

#[test]
fn secrets_and_configs_are_checked() {
    check_compose(
        "services:\n  web: {image: w, secrets: [a, b, {source: c, mode: 99999}], configs: [d]}\n\
         secrets:\n  a: {file: a.txt}\n  b: {external: true}\n  c: {environment: C}\nconfigs:\n  \
         e: {content: x, file: y}\n",
        &[
            "compose.yaml:2:53 validation_failed services.web.secrets[2].mode: \
             services.web.secrets[2].mode must be permission bits such as 0440",
            "compose.yaml:2:72 validation_failed services.web.configs[0]: \
             service \"web\" uses config \"d\", which is not declared; declared configs: e",
            "compose.yaml:4:6 validation_failed secrets.a: \
             secrets.a: cannot read \"a.txt\": no such file or directory",
            "compose.yaml:5:6 validation_failed secrets.b: \
             an external secret is not supported; give it a `file:`",
            "compose.yaml:6:6 validation_failed secrets.c: \
             secrets.c: environment variable \"C\" is not set",
            "compose.yaml:8:6 validation_failed configs.e: configs.e has more than one source",
        ],
    );
}

#[test]
fn regression_privileges_need_their_label() {
    let message = |key: &str| {
        format!(
            "service \"web\" sets {key}, which needs the label jaco.io/allow-privileged: \"true\""
        )
    };
    let expect = format!(
        "compose.yaml:4:17 validation_failed services.web.privileged: {}",
        message("privileged")
    );
    check_service("privileged: true", &[&expect]);
    check_service(
        "privileged: true\nlabels: {jaco.io/allow-privileged: 'yes'}",
        &[&expect],
    );
    check_service(
        "privileged: true\nlabels: {jaco.io/allow-privileged: 'true'}",
        &[],
    );
    let expect = format!(
        "compose.yaml:4:19 validation_failed services.web.security_opt: {}",
        message("security_opt")
    );
    check_service("security_opt: ['seccomp:unconfined']", &[&expect]);
    check_service("security_opt: []", &[]);
}

#[test]
fn values_have_types() {
    let check = |keys: &str, place: &str, message: &str| {
        let path = keys.split(':').next().unwrap();
        let expect =
            format!("compose.yaml:{place} validation_failed services.web.{path}: {message}");
        check_service(keys, &[&expect]);
    };
    check(
        "pull_policy: daily",
        "4:18",
        "services.web.pull_policy must be one of always, missing, if_not_present, never, build, \
         not \"daily\"",
    );
    check("tty: maybe", "4:10", "services.web.tty must be a boolean");
    check(
        "pids_limit: 017",
        "4:17",
        "services.web.pids_limit must be an integer",
    );
    check(
        "mem_limit: lots",
        "4:16",
        "services.web.mem_limit must be a size such as 64m or 1gb",
    );
    check(
        "stop_grace_period: 10",
        "4:24",
        "services.web.stop_grace_period must be a duration such as 10s or 1m30s",
    );
    check(
        "cpus: -1",
        "4:11",
        "services.web.cpus must be a number of at least 0",
    );
    check(
        "image2: x",
        "4:5",
        "unknown key \"image2\" at services.web.image2",
    );
    check(
        "environment: text",
        "4:18",
        "services.web.environment must be a mapping, or a list of KEY=value",
    );
    check(
        "command: \"'open\"",
        "4:14",
        "services.web.command has an unclosed quote",
    );
    check(
        "platform: windows/amd64",
        "4:15",
        "platform \"windows/amd64\" must be linux/<arch>[/<variant>]",
    );
    check(
        "ipc: container:x",
        "4:10",
        "services.web.ipc must be one of none, private, shareable, host",
    );
    check(
        "group_add: x",
        "4:16",
        "services.web.group_add must be a list",
    );
    check_service(
        "healthcheck: {test: [true]}",
        &[
            "compose.yaml:4:25 validation_failed services.web.healthcheck.test: \
           services.web.healthcheck.test must begin with CMD, CMD-SHELL or NONE",
        ],
    );
    check_service(
        "deploy: {update_config: {max_failure_ratio: 2}, placement: \
         {constraints: ['node.role == manager', 'node.hostname = a']}}",
        &[
            "compose.yaml:4:49 validation_failed services.web.deploy.update_config.\
             max_failure_ratio: services.web.deploy.update_config.max_failure_ratio must be a \
             number from 0 to 1",
            "compose.yaml:4:79 validation_failed services.web.deploy.placement.constraints[0]: \
             constraint \"node.role == manager\" looks at \"node.role\"; known are \
             node.hostname, node.labels.<key> and node.platform.arch",
            "compose.yaml:4:103 validation_failed services.web.deploy.placement.constraints[1]: \
             constraint \"node.hostname = a\" must compare with == or !=",
        ],
    );
}
