//! A compose file of a thousand services resolves, and stays within every bound.
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use support::{JACO, Project};

#[test]
fn a_thousand_services_that_share_an_anchor_resolve() {
    let mut compose = String::from(
        "x-base: &base\n  image: registry.example/app:1\n  environment: &env {A: '1', B: '2', C: \
        '3'}\n  \
         healthcheck: {test: [CMD, curl, localhost], interval: 5s, retries: 3}\n  \
         logging: {driver: json-file, options: {max-size: 10m}}\nservices:\n",
    );
    for n in 0..1000 {
        compose.push_str(&format!(
            "  s{n}:\n    <<: *base\n    environment:\n      <<: *env\n      N: '{n}'\n    \
             ports: ['{}:80']\n    networks: [front, back]\n    volumes: ['data:/data']\n    \
             deploy: {{replicas: 2, resources: {{reservations: {{memory: 64m}}}}}}\n",
            10_000 + n
        ));
        if n > 0 {
            compose.push_str(&format!("    depends_on: [s{}]\n", n - 1));
        }
    }
    compose.push_str("networks: {front: , back: }\nvolumes: {data: }\n");
    let spec = Project::default().spec(JACO, &compose);
    assert_eq!(spec.services.len(), 1000);
    assert_eq!(spec.services["s999"].container.environment["N"], "999");
}
