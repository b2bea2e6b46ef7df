//! Workers that answer several times: each answer is heard as it comes, because what comes next may hang.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::process::Child;

use super::{Answer, Failed, Reply, Request, start};

/// How a worker that answers several times ended.
#[derive(Clone, Debug)]
pub enum Ended {
    /// It did all of it.
    Done,
    /// It failed.
    Failed(Failed),
    /// It was left to itself.
    Hangs,
}

/// Starts a worker that answers several times, and collects its answers until it ends or the limit is over.
pub async fn follow(request: &Request, limit: Duration) -> (Vec<Answer>, Ended) {
    let failed = |attempt: &str, error: &io::Error| Ended::Failed(Failed::local(attempt, error));
    let mut child = match start(request).await {
        Ok(child) => child,
        Err(error) => return (Vec::new(), failed("cannot start a worker", &error)),
    };
    let mut output = Vec::new();
    let mut hangs = false;
    if let Some(mut stdout) = child.stdout.take() {
        let mut over = std::pin::pin!(tokio::time::sleep(limit));
        while !hangs {
            tokio::select! {
                read = stdout.read_buf(&mut output) => if !matches!(read, Ok(1..)) { break },
                () = &mut over => hangs = true,
            }
        }
    }
    let (answers, ended) = read_replies(&output);
    if hangs && ended.is_none() {
        let _ = child.start_kill(); // one that hangs in the kernel survives it
        return (answers, Ended::Hangs);
    }
    let ended = ended.unwrap_or_else(|| failed("the worker was ended", &io::ErrorKind::UnexpectedEof.into()));
    (answers, ended)
}

/// One behind the other, as far as they are whole; the last one says how it ended, if it came to that.
fn read_replies(output: &[u8]) -> (Vec<Answer>, Option<Ended>) {
    let mut answers = Vec::new();
    for reply in serde_json::Deserializer::from_slice(output).into_iter::<Reply>().map_while(Result::ok) {
        match reply {
            Ok(Answer::Done) => return (answers, Some(Ended::Done)),
            Ok(answer) => answers.push(answer),
            Err(failed) => return (answers, Some(Ended::Failed(failed))),
        }
    }
    (answers, None)
}

/// The same for work that takes as long as it takes: no two answers may lie further apart than `silence`, and each is handed on as it
/// comes.
pub async fn follow_steps(request: &Request, silence: Duration, heard: impl FnMut(Answer)) -> Ended {
    match start(request).await {
        Ok(child) => listen(child, silence, heard).await,
        Err(error) => Ended::Failed(Failed::local("cannot start a worker", &error)),
    }
}

async fn listen(mut child: Child, silence: Duration, mut heard: impl FnMut(Answer)) -> Ended {
    let mut output = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        while let Ok(read) = tokio::time::timeout(silence, stdout.read_buf(&mut output)).await {
            let (answers, ended) = take_replies(&mut output);
            answers.into_iter().for_each(&mut heard);
            if let Some(ended) = ended {
                return ended;
            }
            if !matches!(read, Ok(1..)) {
                return Ended::Failed(Failed::local("the worker was ended", &io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
    let _ = child.start_kill();
    Ended::Hangs
}

/// Those that are whole leave the buffer.
fn take_replies(output: &mut Vec<u8>) -> (Vec<Answer>, Option<Ended>) {
    let mut replies = serde_json::Deserializer::from_slice(output).into_iter::<Reply>();
    let mut whole = 0;
    while let Some(Ok(_)) = replies.next() {
        whole = replies.byte_offset();
    }
    read_replies(&output.drain(..whole).collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::super::Reply;
    use super::*;
    use crate::plan::diagnosis::{Part, Passed};

    #[test]
    fn replies_come_one_behind_the_other_and_the_last_may_be_cut_off() {
        let part = |part| Answer::Passed(Passed { part, seconds: 0.5, said: "said".to_owned() });
        let failed = Failed::local("cannot mount", &io::Error::from_raw_os_error(libc::EACCES));
        let replies: [Reply; 3] = [Ok(part(Part::Options)), Ok(part(Part::Create)), Err(failed)];
        let output: Vec<u8> = replies.iter().flat_map(|reply| serde_json::to_vec(reply).unwrap()).collect();
        let (answers, ended) = read_replies(&output);
        assert!(matches!(&answers[..], [Answer::Passed(_), Answer::Passed(second)] if second.part == Part::Create));
        assert!(matches!(ended, Some(Ended::Failed(failed)) if failed.errno == Some(libc::EACCES)));
        let (answers, ended) = read_replies(&output[..output.len() - 1]);
        assert!(answers.len() == 2 && ended.is_none(), "{ended:?}");
        assert!(matches!(read_replies(b"{\"Ok\":\"done\"}"), (answers, Some(Ended::Done)) if answers.is_empty()));
    }

    #[test]
    fn a_reply_that_is_cut_off_waits_for_its_rest() {
        let part =
            |part| serde_json::to_vec(&Reply::Ok(Answer::Passed(Passed { part, seconds: 0.5, said: String::new() })));
        let (first, second) = (part(Part::Options).unwrap(), part(Part::Create).unwrap());
        let mut output = [&first[..], &second[..9]].concat();
        assert!(matches!(take_replies(&mut output), (answers, None) if answers.len() == 1));
        assert_eq!(output, second[..9]);
        output.extend(&second[9..]);
        output.extend(b"{\"Ok\":\"done\"}");
        assert!(matches!(take_replies(&mut output), (answers, Some(Ended::Done)) if answers.len() == 1));
        assert_eq!(output, b"");
    }

    fn worker(script: &str) -> Child {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", script]).stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap()
    }

    #[tokio::test]
    async fn a_worker_that_falls_silent_is_given_up_and_its_answers_are_kept() {
        let kernel = r#"{"Ok":{"kernel":{"mount_params":null,"dirty_limits":true}}}"#;
        for (rest, hangs) in [("exec sleep 600", true), ("exit 1", false)] {
            let mut heard = 0;
            let silence = if hangs { Duration::from_millis(300) } else { Duration::from_secs(60) };
            let ended = listen(worker(&format!("echo '{kernel}'; {rest}")), silence, |_| heard += 1).await;
            assert_eq!(heard, 1, "{ended:?}");
            assert_eq!(matches!(ended, Ended::Hangs), hangs, "{ended:?}");
        }
    }
}
