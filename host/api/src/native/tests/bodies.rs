//! Bodies that are no tasks, too large, or do not come.

use axum::body::Body;
use axum::http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::is_contract_error;
use crate::fake::{DEADLINE, api};

#[tokio::test]
async fn what_is_no_json_is_refused_and_nothing_is_stored() {
    let api = api().await;
    for body in [
        "",
        "   ",
        "{",
        "nonsense",
        "[]",
        "null",
        "7",
        "\"x\"",
        "{\"name\": 7}",
    ] {
        is_contract_error(&api.post("/tasks", body).await, 400, "");
    }
    let deep = "[".repeat(100_000);
    is_contract_error(&api.post("/setTasks", &deep[..60_000]).await, 400, "");
    let bad_utf8 = Request::post("/tasks")
        .body(Body::from(b"{\"name\": \"\xff\"}".to_vec()))
        .unwrap();
    is_contract_error(&api.send(bad_utf8).await, 400, "");
    assert_eq!(api.get("/getTasks").await.text(), "[]\n");
}

#[tokio::test]
async fn only_the_first_value_counts_and_unknown_fields_do_not() {
    let api = api().await;
    let body = r#"{"name": "one", "process": {"command": ["hang"], "x": 1}, "y": {}} trailing"#;
    assert_eq!(api.post("/tasks", body).await.status, 201);
}

#[tokio::test]
async fn too_large_a_body_is_refused_however_it_is_sent() {
    let api = api().await;
    let large = " ".repeat(64 * 1024 + 1);
    is_contract_error(&api.post("/tasks", &large).await, 413, "65536 bytes");
    let pieces = (0..3).map(|_| Ok::<_, std::io::Error>(vec![b' '; 30_000]));
    let request = Request::post("/tasks")
        .body(Body::from_stream(futures::stream::iter(pieces)))
        .unwrap();
    is_contract_error(&api.send(request).await, 413, "65536 bytes");
}

#[tokio::test]
async fn a_body_in_pieces_is_one_body() {
    let api = api().await;
    let body = br#"{"name": "one", "process": {"command": ["hang"]}}"#;
    let pieces = body
        .chunks(7)
        .map(|piece| Ok::<_, std::io::Error>(piece.to_vec()));
    let pieces: Vec<_> = pieces.collect();
    let request = Request::post("/tasks")
        .body(Body::from_stream(futures::stream::iter(pieces)))
        .unwrap();
    assert_eq!(api.send(request).await.status, 201);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let api = api().await;
    let never = futures::stream::pending::<Result<Vec<u8>, std::io::Error>>();
    let request = Request::post("/tasks")
        .body(Body::from_stream(never))
        .unwrap();
    is_contract_error(&api.send(request).await, 408, "did not arrive");
}

#[tokio::test]
async fn a_client_that_sends_far_too_much_reads_the_answer() {
    let api = api().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = crate::ServeLimits::default();
    let listeners = vec![crate::Listener::Tcp(listener)];
    let serving = crate::serve(listeners, api.router.clone(), limits, api.shutdown.clone());
    let serving = tokio::spawn(serving);
    let talking = async {
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        let length = 100 * 1024 * 1024;
        let head = format!("POST /tasks HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![b' '; 1024 * 1024];
        for _ in 0..100 {
            client.write_all(&piece).await.unwrap();
        }
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 413");
        api.shutdown.cancel();
        serving.await.unwrap()
    };
    let drained = tokio::time::timeout(DEADLINE, talking).await.unwrap();
    assert_eq!(drained.cut, 0);
}
