//! Calls to look at a revision again.

use futures::{Stream, StreamExt as _};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use crate::knative::PodAutoscaler;

/// Sends calls to whoever decides; to nobody while this program does not lead.
#[derive(Clone, Debug)]
pub struct Triggers {
    one: broadcast::Sender<ObjectRef<PodAutoscaler>>,
    all: broadcast::Sender<()>,
}

impl Default for Triggers {
    fn default() -> Self {
        Self { one: broadcast::channel(4096).0, all: broadcast::channel(16).0 }
    }
}

impl Triggers {
    /// Look at the revision of this name again.
    pub fn revision(&self, namespace: &str, name: &str) {
        // An error means that nobody listens: then nobody decides either.
        let _ = self.one.send(ObjectRef::new(name).within(namespace));
    }

    /// Look at all revisions again.
    pub fn all(&self) {
        let _ = self.all.send(());
    }

    /// Calls about one revision, from now on. Calls that came too fast are lost; every revision is looked at each second anyway.
    pub fn revisions(&self) -> impl Stream<Item = ObjectRef<PodAutoscaler>> + Send + use<> {
        BroadcastStream::new(self.one.subscribe()).filter_map(|call| std::future::ready(call.ok()))
    }

    /// Calls about all revisions, from now on.
    pub fn everything(&self) -> impl Stream<Item = ()> + Send + use<> {
        BroadcastStream::new(self.all.subscribe()).map(|_| ())
    }
}
