//! Rollouts, scaling and drains on real engines, with requests all the time (spec 05).
#![allow(clippy::unwrap_used)] // a test that fails says where

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use jaco_testkit::bed::{Bed, Host, SOON, poll_until};
use jaco_testkit::project::Project;

use support::{apply, bed, containers, deploy_web, replicas, voters};

/// Container ids by name.
type Names = std::collections::BTreeMap<String, String>;

/// Visitors on every host, and what went wrong for them.
#[derive(Default)]
struct Visitors {
    over: AtomicBool,
    served: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Visitors {
    /// Asks through one host until it is over.
    fn visit(&self, host: &Host) {
        while !self.over.load(Ordering::Relaxed) {
            self.ask(host, "/");
        }
    }

    fn ask(&self, host: &Host, path: &str) {
        let problem = match host.http_get("web.example.com", "127.0.0.1:80", path) {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => Some(format!("{}: {}", host.name(), answer.status)),
            Err(error) => Some(format!("{}: {error:#}", host.name())),
        };
        self.served.fetch_add(1, Ordering::Relaxed);
        self.failures.lock().unwrap().extend(problem);
    }
}

/// Runs `work` while visitors ask through every host; none of them may be turned away.
fn under_visitors(bed: &Bed, work: impl FnOnce(&Visitors)) {
    let visitors = Visitors::default();
    thread::scope(|scope| {
        for host in bed.hosts() {
            scope.spawn(|| visitors.visit(host));
        }
        let end = End(&visitors);
        work(&visitors);
        drop(end);
    });
    let failures = visitors.failures.into_inner().unwrap();
    let served = visitors.served.into_inner();
    assert!(failures.is_empty(), "of {served}: {failures:?}");
    assert!(served > 100, "only {served} requests were made");
}

/// Sends the visitors home, also when the test fails.
struct End<'a>(&'a Visitors);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

fn change_image(bed: &Bed, project: &Project, image: &str) {
    let compose = format!("services:\n  web:\n    image: {}\n", bed.image(image));
    project.write("compose.yaml", &compose).unwrap();
}

fn settles(host: &Host, count: usize) {
    poll_until(SOON, &format!("{count} replicas"), || {
        let all = host.jaco_json(&["status", "web"]).unwrap_or_default();
        let all = all["replicas"].as_array().map_or(0, Vec::len);
        all == count && replicas(host, "web", "running") == count
    })
    .unwrap();
}

#[test]
fn no_request_is_lost_to_an_update_a_scale_or_a_drain() {
    let bed = bed("roll", 3);
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let project = Project::new("roll").unwrap();
    deploy_web(&bed, &project, 3);
    let host = &bed.hosts()[0];
    apply(host, &project);

    under_visitors(&bed, |visitors| {
        thread::scope(|scope| {
            // Requests that take longer than a step are in flight during each of them.
            scope.spawn(|| visitors.ask(host, "/cgi-bin/slow?5"));
            change_image(&bed, &project, "web:2");
            apply(host, &project);
        });
        let page = host
            .http_get("web.example.com", "127.0.0.1:80", "/")
            .unwrap();
        assert!(page.text().starts_with("web 2"), "{}", page.text());
        thread::scope(|scope| {
            scope.spawn(|| visitors.ask(host, "/cgi-bin/slow?5"));
            host.jaco_text(&["scale", "web/web=6"]).unwrap();
            settles(host, 6);
        });
        thread::scope(|scope| {
            scope.spawn(|| visitors.ask(host, "/cgi-bin/slow?5"));
            host.jaco_text(&["scale", "web/web=2"]).unwrap();
            settles(host, 2);
        });
        let before: Vec<_> = bed.hosts().iter().map(containers).collect();
        host.jaco_text(&["restart", "web/web"]).unwrap();
        poll_until(SOON, "the restart", || {
            let kept = |(host, before): (&Host, &Names)| {
                containers(host)
                    .keys()
                    .any(|name| before.contains_key(name))
            };
            !bed.hosts().iter().zip(&before).any(kept)
        })
        .unwrap();
        settles(host, 2);
        let drained = &bed.hosts()[1];
        host.jaco_text(&["node", "drain", &drained.name()]).unwrap();
        settles(host, 2);
    });
    assert!(containers(&bed.hosts()[1]).is_empty());
    let nodes = host.jaco_json(&["node", "list"]).unwrap();
    assert_eq!(nodes["nodes"][1]["status"], "draining");
    host.jaco_text(&["node", "undrain", &bed.hosts()[1].name()])
        .unwrap();
    let nodes = host.jaco_json(&["node", "list"]).unwrap();
    assert_eq!(nodes["nodes"][1]["status"], "ready");
    let events = host.jaco_text(&["audit", "--type", "rollout_completed", "-o", "json"]);
    assert!(events.unwrap().contains("rollout_completed"));
}

#[test]
fn no_visitor_is_turned_away_while_daemons_restart() {
    let bed = bed("again", 3);
    for host in bed.hosts() {
        host.daemon().manage().unwrap();
    }
    bed.form_cluster().unwrap();
    poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
    let project = Project::new("again").unwrap();
    deploy_web(&bed, &project, 3);
    let host = &bed.hosts()[0];
    apply(host, &project);

    under_visitors(&bed, |visitors| {
        for restarted in bed.hosts() {
            thread::scope(|scope| {
                scope.spawn(|| visitors.ask(restarted, "/cgi-bin/slow?5"));
                restarted.stop_daemon().unwrap();
                restarted.start_daemon().unwrap();
            });
            poll_until(SOON, "three voters", || voters(&bed) == Some(3)).unwrap();
            settles(restarted, 3);
        }
    });
    let kept = || host.daemon().kept_sockets("http");
    assert!(kept() > 0, "the port was closed meanwhile");
    host.jaco_text(&["delete", "web"]).unwrap();
    poll_until(SOON, "the port is given up", || kept() == 0).unwrap();
}

#[test]
fn what_does_not_run_is_taken_back_and_the_old_revision_serves_on() {
    let bed = bed("back", 1);
    bed.form_cluster().unwrap();
    let project = Project::new("back").unwrap();
    deploy_web(&bed, &project, 2);
    let host = &bed.hosts()[0];
    apply(host, &project);
    let before = containers(host);

    let elsewhere = format!(
        "services:\n  web: {{image: '{}', environment: {{PORT: '8080'}}}}\n",
        bed.image("web:2")
    );
    for (broken, told) in [(None, "exited with code 1"), (Some(elsewhere), "port 80")] {
        under_visitors(&bed, |_| {
            match &broken {
                Some(compose) => drop(project.write("compose.yaml", compose).unwrap()),
                None => change_image(&bed, &project, "web:broken"),
            }
            is_taken_back(host, &project, told);
            poll_until(SOON, "the old revision alone", || {
                containers(host) == before
            })
            .unwrap();
            poll_until(SOON, "the end of the rollback", || {
                let status = host.jaco_json(&["status", "web"]).unwrap_or_default();
                status["deployments"][0]["status"] == "active"
            })
            .unwrap();
        });
        let status = host.jaco_json(&["status", "web"]).unwrap();
        let why = &status["deployments"][0]["status_details"]["web"];
        assert!(why.as_str().unwrap().contains(told), "{why}");
        let history = host.jaco_text(&["history", "web"]).unwrap();
        assert!(history.contains("rollback to 1"), "{history}");
    }
}

fn is_taken_back(host: &Host, project: &Project, told: &str) {
    let words = ["apply", &project.path("jaco.yaml"), "--wait"];
    let output = host.jaco(&words).unwrap();
    assert_eq!(output.status.code(), Some(4));
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    let taken_back = error.contains("rolled back") && error.contains(told);
    assert!(taken_back, "{error}");
}
