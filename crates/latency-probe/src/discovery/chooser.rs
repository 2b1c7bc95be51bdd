//! Keeps the selection up to date when peers, pins or draws change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use latency_matrix::NodeName;
use tokio::sync::watch;

use crate::clock::Wall;
use crate::discovery::selection::{PeerSelection, SelectionLimits, select};
use crate::peers::PeerSet;

/// What the selection depends on.
#[derive(Clone, Debug)]
pub struct SelectionInputs {
    /// The node of this prober.
    pub own: NodeName,
    /// Limits of the selection.
    pub limits: SelectionLimits,
    /// File with the nodes that are always probed, one per line. A missing file means none.
    pub pinned_file: Option<PathBuf>,
    /// Period for re-reading the file and renewing draws.
    pub period: Duration,
}

/// Publishes the selection to `chosen` until there are no receivers.
pub(crate) async fn keep_choosing(
    choice: SelectionInputs,
    mut known: watch::Receiver<Arc<PeerSet>>,
    chosen: watch::Sender<Arc<PeerSelection>>,
) {
    let mut source_lives = true;
    loop {
        let pinned = read_pins(choice.pinned_file.as_deref()).await;
        let peers = known.borrow_and_update().clone();
        let unix_seconds = Wall::now().as_nanos() / 1_000_000_000;
        let was_choice = chosen.borrow().is_choice;
        let selection = select(&choice.own, &peers, &pinned, choice.limits, was_choice, unix_seconds);
        // While all pairs are probed, neither pins nor time matter.
        let is_whole = !selection.is_choice;
        chosen.send_if_modified(|held| {
            let differs = **held != selection;
            if differs {
                *held = Arc::new(selection);
            }
            differs
        });
        tokio::select! {
            () = chosen.closed() => return,
            changed = known.changed(), if source_lives => source_lives = changed.is_ok(),
            () = tokio::time::sleep(choice.period), if !is_whole => {}
        }
    }
}

async fn read_pins(file: Option<&Path>) -> BTreeSet<NodeName> {
    let Some(file) = file else { return BTreeSet::new() };
    let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
    text.lines().filter_map(|line| line.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::Peer;

    #[tokio::test]
    async fn the_choice_follows_peers_and_pins() {
        let file = std::env::temp_dir().join(format!("lp-pins-{}", std::process::id()));
        let peers = |count: u8| {
            (1..=count).map(|n| (NodeName::from(format!("n{n}")), Peer::at(([10, 0, 0, n], 1).into()))).collect::<PeerSet>()
        };
        let limits = SelectionLimits { all_up_to: 10, peers: 5, renewal: Duration::from_secs(1 << 40) };
        let choice =
            SelectionInputs { own: "n1".into(), limits, pinned_file: Some(file.clone()), period: Duration::from_millis(50) };
        let (known_out, known_in) = watch::channel(Arc::new(peers(10)));
        let (chosen_out, mut chosen_in) = watch::channel(Arc::default());
        let task = tokio::spawn(keep_choosing(choice, known_in, chosen_out));
        chosen_in.changed().await.unwrap();
        assert_eq!(chosen_in.borrow_and_update().peers.len(), 9);
        known_out.send_replace(Arc::new(peers(40)));
        chosen_in.changed().await.unwrap();
        let drawn = chosen_in.borrow_and_update().clone();
        assert_eq!((drawn.peers.len(), drawn.fleet), (5, 40));
        let other = peers(40).into_keys().rfind(|node| !drawn.peers.contains_key(node) && node.as_str() != "n1").unwrap();
        std::fs::write(&file, format!("{other}\nnobody\n")).unwrap();
        chosen_in.changed().await.unwrap();
        let pinned = chosen_in.borrow_and_update().clone();
        std::fs::remove_file(&file).unwrap();
        assert!(pinned.peers.len() == 6 && pinned.peers.contains_key(&other));
        drop(chosen_in);
        task.await.unwrap();
    }
}
