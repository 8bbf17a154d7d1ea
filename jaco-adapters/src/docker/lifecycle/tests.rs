//! The end of a container under engines that do not do what they are asked for.

use std::path::{Path, PathBuf};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use super::*;

/// What an engine does when it is asked to stop a container.
#[derive(Clone, Copy)]
enum Manner {
    Refuses,
    HangsUp,
    SaysNothing,
}

/// Accepts connections on a socket below a folder of its own, and speaks just enough of the
/// engine's API.
struct Stub {
    folder: PathBuf,
}

impl Stub {
    fn start(name: &str, manner: Manner) -> (Self, Lifecycle) {
        let folder = std::env::temp_dir().join(format!("jaco-stub-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, manner));
            }
        });
        (
            Self {
                folder: folder.clone(),
            },
            lifecycle(&socket, &folder),
        )
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn lifecycle(socket: &Path, folder: &Path) -> Lifecycle {
    Lifecycle {
        engine: Engine::new(&format!("unix://{}", socket.display())),
        files: FileStore::new(folder.join("files")),
    }
}

async fn answer(stream: UnixStream, manner: Manner) {
    let mut stream = BufReader::new(stream);
    let mut first = String::new();
    if stream.read_line(&mut first).await.is_err() {
        return;
    }
    let mut line = String::new();
    while stream.read_line(&mut line).await.is_ok_and(|read| read > 2) {
        line.clear();
    }
    let (status, body) = match manner {
        _ if first.contains("/version") => ("200 OK", r#"{"ApiVersion":"1.41"}"#),
        Manner::Refuses => ("500 Internal Server Error", r#"{"message":"no"}"#),
        Manner::HangsUp => return,
        Manner::SaysNothing => std::future::pending().await,
    };
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
}

const BRIEF: Ending = Ending {
    grace: Duration::ZERO,
    limit: Duration::from_millis(50),
};

#[tokio::test]
async fn a_stop_that_never_ends_is_given_up() {
    let (_stub, lifecycle) = Stub::start("mute", Manner::SaysNothing);
    lifecycle.stop("any", BRIEF).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_is_refused_makes_way_for_the_removal() {
    let (_stub, lifecycle) = Stub::start("refusing", Manner::Refuses);
    let patient = Ending::of(None);
    lifecycle.stop("any", patient).await.unwrap();
}

#[tokio::test]
async fn a_stop_that_is_cut_off_is_an_error() {
    let (_stub, lifecycle) = Stub::start("gone", Manner::HangsUp);
    let patient = Ending::of(None);
    lifecycle.stop("any", patient).await.unwrap_err();
}
