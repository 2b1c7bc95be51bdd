//! Asks as the scheduler does: one connection, one request at a time, names in a rotating order.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};

/// How long requests took.
pub(crate) struct Quantiles {
    pub(crate) least: Duration,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(1 << 18, stream) })
    }

    /// Sends so many requests, after as many that are not counted.
    pub(crate) fn measure(
        &mut self,
        names: &[String],
        annotations: &Value,
        requests: usize,
        is_right: impl Fn(&[u8]) -> bool,
    ) -> anyhow::Result<Quantiles> {
        // Made beforehand: what writing the request costs is the scheduler's own.
        let bodies: Vec<Vec<u8>> = (0..16).map(|turn| body(names, turn * names.len() / 16, annotations)).collect();
        let mut times = Vec::with_capacity(requests);
        for number in 0..2 * requests {
            let begun = Instant::now();
            let answer = self.ask(&bodies[number % bodies.len()])?;
            let took = begun.elapsed();
            anyhow::ensure!(is_right(&answer), "answered {}", String::from_utf8_lossy(&answer[..answer.len().min(200)]));
            if number >= requests {
                times.push(took);
            }
        }
        times.sort();
        Ok(Quantiles { least: times[0], p50: times[requests / 2], p99: times[requests * 99 / 100] })
    }

    fn ask(&mut self, body: &[u8]) -> anyhow::Result<Vec<u8>> {
        let head = format!(
            "POST /prioritize HTTP/1.1\r\nHost: extender\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let (mut line, mut length) = (String::new(), None);
        self.stream.read_line(&mut line)?;
        anyhow::ensure!(line.contains(" 200 "), "{line}");
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((key, value)) = line.trim().split_once(':') else { break };
            if key.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse::<usize>()?);
            }
        }
        let mut answer = vec![0; length.context("an answer without a length")?];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }
}

/// A request as kube-scheduler writes it, with the names from `first` on.
fn body(names: &[String], first: usize, annotations: &Value) -> Vec<u8> {
    let names: Vec<&String> = names[first..].iter().chain(&names[..first]).collect();
    let container = json!({"name": "web", "image": "web:1", "resources": {"limits": {"placement.kantai.dev/near": "1", "cpu": "2"}},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent"});
    // Such a limit alone is nothing that a pod opts in by.
    let limits = if annotations.as_object().is_some_and(serde_json::Map::is_empty) { json!({}) } else { container };
    let pod = json!({"metadata": {"name": "web-1", "namespace": "default", "uid": "6005", "annotations": annotations},
        "spec": {"containers": [limits], "schedulerName": "default-scheduler", "tolerations": [], "priority": 0},
        "status": {"phase": "Pending", "qosClass": "BestEffort"}});
    format!("{{\"Pod\":{pod},\"Nodes\":null,\"NodeNames\":{}}}\n", json!(names)).into_bytes()
}
