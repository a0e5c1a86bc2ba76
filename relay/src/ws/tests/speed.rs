//! What the relay's own threads cost. Measurements, run by hand:
//! `CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test -p claudenest-relay speed -- --ignored --nocapture --test-threads=1`.

use std::time::{Duration, Instant};

use claudenest_shared::wire::limits::MAX_LAG_LIMIT_BYTES;

use super::page::Page;
use super::*;

/// CPU seconds that threads of this name have used.
fn cpu_seconds(name: &str) -> f64 {
    let mut ticks = 0;
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let Ok(stat) = std::fs::read_to_string(task.unwrap().path().join("stat")) else { continue };
        let (head, tail) = stat.rsplit_once(") ").unwrap();
        if head.ends_with(&format!("({name}")) {
            let fields: Vec<&str> = tail.split(' ').collect();
            ticks += fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        }
    }
    ticks as f64 / 100.0
}

/// Runs a test against a relay that has threads of its own.
fn measure<F: Future<Output = ()>>(test: impl FnOnce(Relay) -> F) {
    let runtime = |name: &str| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name(name).enable_all().build().unwrap()
    };
    let (ours, theirs) = (runtime("relay"), runtime("peers"));
    let relay = ours.block_on(ours.spawn(Relay::start())).unwrap();
    theirs.block_on(test(relay));
}

#[test]
#[ignore = "a measurement"]
fn speed_of_bulk_to_one_viewer() {
    measure(|relay| async move {
        let (_, machine) = relay.machine(1, &[1]).await;
        let mut page = Page::open(&relay.address, &relay.ticket(1)).await;
        page.attach(1, session_id(1), Some(0), None, Some(MAX_LAG_LIMIT_BYTES)).await;
        page.until_screen(1, |screen| screen.is_attached).await;
        let total = 48 << 20;
        let (began, cpu) = (Instant::now(), cpu_seconds("relay"));
        machine.output(session_id(1), pattern(total)).await;
        page.until_screen(1, |screen| screen.bytes.len() == total).await;
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds("relay") - cpu);
        let megabytes = total as f64 / 1e6;
        eprintln!("bulk: {:.0} MB/s, relay {:.2} CPU-s/GB", megabytes / seconds, cpu / megabytes * 1e3);
    });
}

#[test]
#[ignore = "a measurement"]
fn speed_of_a_hundred_viewers() {
    measure(|relay| async move {
        let (_, machine) = relay.machine(1, &[1]).await;
        let (seconds, step, piece) = (5, 8, 16 * 1024);
        let total = 1000 / step * seconds * piece;
        let began = Instant::now();
        let mut readers = Vec::new();
        for _ in 0..100 {
            let (address, ticket) = (relay.address.clone(), relay.ticket(1));
            let (attached, is_attached) = tokio::sync::oneshot::channel();
            readers.push(tokio::spawn(async move {
                let mut page = Page::open(&address, &ticket).await;
                page.attach(1, session_id(1), Some(0), None, None).await;
                page.until_screen(1, |screen| screen.is_attached).await;
                attached.send(()).unwrap();
                let mut lags = Vec::new();
                let mut pieces = 0;
                while pieces < total / piece {
                    page.until_screen(1, |screen| screen.bytes.len() >= (pieces + 1) * piece).await;
                    let bytes = &page.screens[&1].bytes;
                    while (pieces + 1) * piece <= bytes.len() {
                        let sent =
                            u64::from_le_bytes(bytes[pieces * piece..pieces * piece + 8].try_into().unwrap());
                        lags.push(began.elapsed().as_micros() as u64 - sent);
                        pieces += 1;
                    }
                }
                assert_eq!(page.screens[&1].snapshots, 0, "all of it was delivered");
                lags
            }));
            is_attached.await.unwrap();
        }
        let cpu = cpu_seconds("relay");
        let mut tick = tokio::time::interval(Duration::from_millis(step as u64));
        for _ in 0..total / piece {
            tick.tick().await;
            let mut bytes = vec![b'x'; piece];
            bytes[..8].copy_from_slice(&(began.elapsed().as_micros() as u64).to_le_bytes());
            machine.output(session_id(1), bytes).await;
        }
        let mut lags = Vec::new();
        for reader in readers {
            lags.extend(reader.await.unwrap());
        }
        let cpu = (cpu_seconds("relay") - cpu) / seconds as f64;
        lags.sort_unstable();
        let (p50, p99) = (lags[lags.len() / 2], lags[lags.len() * 99 / 100]);
        eprintln!("100 viewers x 2 MB/s: relay {cpu:.2} cores, p50 {p50} us, p99 {p99} us");
    });
}
