//! What is searched in messages, and what is not let through.

use super::*;

/// An upstream that answers as its request's body says: the fields of its answer, a blank line, and the answer's body,
/// in which `SECRET` stands for the credential that came; what stands behind `|` follows when the request is over. It tells what it was told to accept in `x-accepts`.
async fn told() -> FakeUpstream {
    FakeUpstream::played(&["api.test"], b"h2", |stream, _| async move {
        let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            tokio::spawn(async move {
                let (head, mut asked) = request.into_parts();
                let secret = head.headers["authorization"].to_str().expect("text").replace("Bearer ", "");
                let told = streams::next(&mut asked).await.expect("what to answer");
                let told = std::str::from_utf8(&told).expect("text").replace("SECRET", &secret);
                let (fields, body) = told.split_once("\n\n").expect("a blank line");
                let accepts = ["accept-encoding", "grpc-accept-encoding", "connect-accept-encoding"]
                    .map(|name| head.headers.get(name).map_or("-", |value| value.to_str().expect("text")));
                let mut response = Response::builder().header("x-accepts", accepts.join(" "));
                for (name, value) in fields.lines().filter_map(|line| line.split_once(": ")) {
                    response = response.header(name, value);
                }
                let response = response.body(()).expect("a response");
                let mut stream = respond.send_response(response, false).expect("an open stream");
                for part in body.split('|') {
                    let _ = stream.send_data(Bytes::copy_from_slice(part.as_bytes()), false);
                    while streams::next(&mut asked).await.is_some() {}
                }
                let _ = stream.send_trailers(status("0"));
            });
        }
    })
    .await
}

/// A message with flags; short enough that it is text.
fn flagged(flags: u8, text: &str) -> String {
    let length = u8::try_from(text.len()).expect("short");
    [char::from(flags), '\0', '\0', '\0', char::from(length)].iter().collect::<String>() + text
}

async fn ask(stage: &Stage, edit: impl FnOnce(&mut HeaderMap), told: String) -> Response<h2::RecvStream> {
    let (response, mut body) = begin(stage, edit, told).await;
    body.send_data(Bytes::new(), true).expect("an open stream");
    response
}

async fn begin(
    stage: &Stage,
    edit: impl FnOnce(&mut HeaderMap),
    told: String,
) -> (Response<h2::RecvStream>, h2::SendStream<Bytes>) {
    let nonce = stage.writer().await;
    let mut sender = stage.sidecar.agent().frames("api.test").await;
    let mut request = call("/t.T/Told", &nonce);
    edit(request.headers_mut());
    let (response, mut body) = sender.send_request(request, false).expect("a stream");
    body.send_data(told.into(), false).expect("an open stream");
    (head(response).await, body)
}

#[tokio::test]
async fn an_echo_is_masked_within_its_message() {
    let stage = Stage::with(told().await, |builder| builder).await;
    let stars = "*".repeat(stage.secret.len());
    for kind in ["application/grpc", "application/grpc-web+proto", "application/connect+json"] {
        // The length counts the credential, which is not here yet.
        let told = flagged(0, "no") + &flagged(0, &"x".repeat(stage.secret.len())).replace('x', "") + "SECRET";
        let response = ask(&stage, |_| (), format!("content-type: {kind}\n\n{told}")).await;
        let (all, trailers) = streams::whole(response.into_body()).await;
        assert_eq!(all, [flagged(0, "no"), flagged(0, &stars)].concat().as_bytes(), "{kind}");
        assert!(trailers.is_some(), "{kind}");
    }
}

#[tokio::test]
async fn upstream_is_told_that_messages_are_read_uncompressed() {
    let stage = Stage::with(told().await, |builder| builder).await;
    let told = || format!("content-type: application/grpc\n\n{}", flagged(0, "ok"));
    let response = ask(&stage, |_| (), told()).await;
    assert_eq!(response.headers()["x-accepts"], "identity - -");
    let edit = |headers: &mut HeaderMap| {
        for name in ["accept-encoding", "grpc-accept-encoding", "connect-accept-encoding"] {
            headers.insert(name, "identity, deflate, gzip".parse().expect("a value"));
        }
    };
    let response = ask(&stage, edit, told()).await;
    assert_eq!(response.headers()["x-accepts"], "deflate, gzip identity identity");
}

#[tokio::test]
async fn compressed_messages_are_withheld() {
    let stage = Stage::with(told().await, |builder| builder).await;
    for fields in [
        "content-type: application/grpc\ngrpc-encoding: gzip",
        "content-type: application/grpc-web-text",
        "content-type: application/connect+proto\nconnect-content-encoding: gzip",
    ] {
        let (response, _) = begin(&stage, |_| (), format!("{fields}\n\n{}", flagged(0, "ok"))).await;
        let text = response.headers()["grpc-message"].to_str().expect("text");
        assert!(text.starts_with("valetkey answer_unscrubbable"), "{fields}: {text}");
        assert!(response.body().is_end_stream());
    }
    for (kind, flags) in [("grpc", 1), ("grpc-web", 1), ("connect+json", 1), ("connect+json", 3), ("grpc", 0x41)] {
        let told = format!("content-type: application/{kind}\n\n{}|{}", flagged(0, "ok"), flagged(flags, "SECRET"));
        let (response, mut stream) = begin(&stage, |_| (), told).await;
        let mut body = response.into_body();
        assert_eq!(streams::next(&mut body).await.expect("a message"), flagged(0, "ok"), "{kind} {flags}");
        stream.send_data(Bytes::new(), true).expect("an open stream");
        // Broken off, not ended.
        assert_eq!(streams::whole(body).await, (Vec::new(), None), "{kind} {flags}");
    }
}
