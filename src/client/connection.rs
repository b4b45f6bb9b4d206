//! One connection to one broker: requests go out in the order of the calls, replies come back in any order.
//!
//! ```text
//!   begin() ─ correlation id, reply slot ─► queue ─► writer task ─► socket
//!                     ▲                                               │
//!                     └──────────── reader task ◄─────────────────────┘
//! ```
//!
//! A connection lives once. When it breaks, or a reply misses its time, everything outstanding fails with
//! [`ClientError::Disconnected`]; the pool in `cluster` opens the next one.

mod reader;

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{ClientConfig, ClientError};
use crate::protocol::api::PROTOCOL_VERSION;
use crate::protocol::frame::{Attachment, Frame, FrameCodec, OutFrame, SegmentedBuf, encode_request};
use crate::protocol::messages::{Hello, HelloReply, Outcome, Request};
use crate::types::CorrelationId;
use reader::FrameReader;

/// Frames that the writer takes from its queue for one vectored write: as many slices as one system call takes.
const FRAMES_A_WRITE: usize = 64;

/// How long a machine may take to accept a connection. Its kernel does that, however busy the broker is, and there is time for a
/// lost packet to be sent once more: one that takes longer is off.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// Locks what no holder can leave half changed: every critical section here is a few assignments that cannot panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An open connection that has said hello. Dropping it closes the socket.
#[derive(Debug)]
pub(super) struct Connection {
    hello: HelloReply,
    link: Arc<Link>,
    outgoing: mpsc::Sender<Outgoing>,
}

/// What reader, writer and callers share.
#[derive(Debug)]
struct Link {
    address: String,
    max_in_flight: usize,
    permits: Arc<Semaphore>,
    next_id: AtomicU32,
    pending: Mutex<Pending>,
    /// Whether it has left somebody waiting for long, and has not said anything since.
    is_silent: AtomicBool,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Pending {
    replies: HashMap<CorrelationId, Waiting>,
    lost: Option<ClientError>,
}

#[derive(Debug)]
struct Waiting {
    reply: oneshot::Sender<Result<Frame, ClientError>>,
    _permit: OwnedSemaphorePermit,
}

struct Outgoing {
    frame: OutFrame,
    written: Option<(oneshot::Sender<()>, OwnedSemaphorePermit)>,
}

/// A request that is on its way. Dropping it forgets the reply.
#[derive(Debug)]
pub(super) struct PendingReply<R> {
    id: CorrelationId,
    link: Arc<Link>,
    reply: oneshot::Receiver<Result<Frame, ClientError>>,
    request: PhantomData<fn() -> R>,
}

impl Connection {
    /// Connects to `address` (`host:port`) and says hello.
    pub async fn open(address: &str, config: &ClientConfig) -> Result<Self, ClientError> {
        let disconnected = |cause: String| ClientError::Disconnected { address: address.to_owned(), cause };
        let opening = async {
            let connecting = timeout(REACH_TIMEOUT, TcpStream::connect(address)).await;
            let unreached = |_| disconnected(format!("nothing there within {} ms", REACH_TIMEOUT.as_millis()));
            let stream = connecting.map_err(unreached)?.map_err(|error| disconnected(error.to_string()))?;
            stream.set_nodelay(true).map_err(|error| disconnected(error.to_string()))?;
            Self::say_hello(stream, address, config).await
        };
        let patience = config.connect_timeout;
        timeout(patience, opening)
            .await
            .unwrap_or_else(|_| Err(disconnected(format!("no answer within {} ms", patience.as_millis()))))
    }

    async fn say_hello(stream: TcpStream, address: &str, config: &ClientConfig) -> Result<Self, ClientError> {
        let link = Arc::new(Link {
            address: address.to_owned(),
            max_in_flight: config.max_in_flight,
            permits: Arc::new(Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS))),
            next_id: AtomicU32::new(1),
            pending: Mutex::default(),
            is_silent: AtomicBool::new(false),
            closed: CancellationToken::new(),
        });
        let (read, write) = stream.into_split();
        // Whoever queues a frame holds a permit, so the queue is never full.
        let (outgoing, queue) = mpsc::channel(config.max_in_flight.max(1));
        tokio::spawn(run_reader(Arc::clone(&link), read, config.max_frame_bytes));
        tokio::spawn(run_writer(Arc::clone(&link), write, queue));
        let hello = HelloReply {
            protocol: 0,
            cluster_id: crate::types::ClusterId(uuid::Uuid::nil()),
            node_id: crate::types::NodeId(0),
            software: String::new(),
            max_frame_bytes: 0,
            apis: Vec::new(),
        };
        let mut connection = Self { hello, link, outgoing };
        let request = Hello {
            protocol_min: PROTOCOL_VERSION,
            protocol_max: PROTOCOL_VERSION,
            client_id: config.client_id.clone(),
            software: concat!("callboard-rust/", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        // The caller's timeout covers this, too, and words the error.
        connection.hello = connection.begin(&request, Vec::new())?.wait(config.connect_timeout * 2).await?.0;
        Ok(connection)
    }

    /// What the node said about itself.
    pub fn hello(&self) -> &HelloReply {
        &self.hello
    }

    /// Whether requests can still be sent.
    pub fn is_open(&self) -> bool {
        !self.link.closed.is_cancelled()
    }

    /// Somebody waits for a reply for long: whoever can be asked somewhere else is, until something comes from there.
    pub fn doubt(&self) {
        self.link.is_silent.store(true, Ordering::Relaxed);
    }

    /// Whether it is doubted, and nothing has come since.
    pub fn is_silent(&self) -> bool {
        self.link.is_silent.load(Ordering::Relaxed)
    }

    /// Ends it for all who share it, with all that is outstanding.
    pub fn give_up(&self, cause: &str) {
        self.link.fail(cause);
    }

    /// Sends a request without waiting for anything: calls that follow each other are sent in that order.
    pub fn begin<R: Request>(&self, request: &R, attachments: Vec<Attachment>) -> Result<PendingReply<R>, ClientError> {
        let permit = self.link.permit()?;
        let id = self.link.next_id();
        let (sender, reply) = oneshot::channel();
        {
            let mut pending = lock(&self.link.pending);
            if let Some(lost) = &pending.lost {
                return Err(lost.clone());
            }
            pending.replies.insert(id, Waiting { reply: sender, _permit: permit });
        }
        let pending = PendingReply { id, link: Arc::clone(&self.link), reply, request: PhantomData };
        self.enqueue(Outgoing { frame: encode_request(request, id, attachments), written: None })?;
        Ok(pending)
    }

    /// Sends a request that is never answered. The answer here comes once it is written to the socket.
    pub fn begin_unanswered<R: Request>(
        &self,
        request: &R,
        attachments: Vec<Attachment>,
    ) -> Result<impl Future<Output = Result<(), ClientError>> + Send + use<R>, ClientError> {
        let permit = self.link.permit()?;
        let (sender, written) = oneshot::channel();
        let frame = encode_request(request, self.link.next_id(), attachments);
        self.enqueue(Outgoing { frame, written: Some((sender, permit)) })?;
        let link = Arc::clone(&self.link);
        Ok(async move { written.await.map_err(|_| link.cause_of_loss()) })
    }

    /// Sends a request and waits for its reply, at most for `patience`.
    pub async fn request<R: Request>(&self, request: &R, patience: Duration) -> Result<R::Reply, ClientError> {
        Ok(self.begin(request, Vec::new())?.wait(patience).await?.0)
    }

    fn enqueue(&self, outgoing: Outgoing) -> Result<(), ClientError> {
        self.outgoing.try_send(outgoing).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => self.link.busy(),
            mpsc::error::TrySendError::Closed(_) => self.link.cause_of_loss(),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.link.fail("it was closed by this client");
    }
}

impl<R: Request> PendingReply<R> {
    /// Waits for the reply and its attachments. A reply that misses `patience` ends the connection: what it would have
    /// said about the order of later requests is unknown.
    pub async fn wait(mut self, patience: Duration) -> Result<(R::Reply, Vec<Bytes>), ClientError> {
        let frame = match timeout(patience, &mut self.reply).await {
            Ok(Ok(frame)) => frame?,
            Ok(Err(_)) => return Err(self.link.cause_of_loss()),
            Err(_) => {
                self.link.fail(&format!("a request was not answered within {} ms", patience.as_millis()));
                return Err(ClientError::RequestTimedOut { address: self.link.address.clone(), after: patience });
            }
        };
        let unusable = |reason: String| ClientError::Protocol { address: self.link.address.clone(), reason };
        if frame.head.api != R::API.number() || frame.head.version != R::VERSION {
            return Err(unusable(format!("a reply to request {} came for {:?}", frame.head.api, R::API)));
        }
        let outcome: Outcome<R::Reply> = frame.decode_body().map_err(|error| unusable(error.message))?;
        match outcome.into_result() {
            Ok(reply) => Ok((reply, frame.attachments)),
            Err(error) => {
                Err(ClientError::Refused { what: format!("{} refused {:?}", self.link.address, R::API), error })
            }
        }
    }
}

impl<R> Drop for PendingReply<R> {
    fn drop(&mut self) {
        lock(&self.link.pending).replies.remove(&self.id);
    }
}

impl Link {
    fn permit(&self) -> Result<OwnedSemaphorePermit, ClientError> {
        Arc::clone(&self.permits).try_acquire_owned().map_err(|_| self.busy())
    }

    fn busy(&self) -> ClientError {
        ClientError::Busy { address: self.address.clone(), limit: self.max_in_flight }
    }

    /// Correlation id 0 marks what concerns the connection as a whole.
    fn next_id(&self) -> CorrelationId {
        loop {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            if id != 0 {
                return CorrelationId(id);
            }
        }
    }

    fn cause_of_loss(&self) -> ClientError {
        lock(&self.pending).lost.clone().unwrap_or_else(|| ClientError::Disconnected {
            address: self.address.clone(),
            cause: "the runtime that served it has stopped".to_owned(),
        })
    }

    /// Ends the connection: all that is outstanding, and all that comes, fails. The first cause stands.
    fn fail(&self, cause: &str) {
        let outstanding = {
            let mut pending = lock(&self.pending);
            pending.lost.get_or_insert_with(|| ClientError::Disconnected {
                address: self.address.clone(),
                cause: cause.to_owned(),
            });
            std::mem::take(&mut pending.replies)
        };
        self.closed.cancel();
        let lost = self.cause_of_loss();
        for waiting in outstanding.into_values() {
            // Nobody may be waiting any more.
            let _ = waiting.reply.send(Err(lost.clone()));
        }
    }

    fn on_frame(&self, frame: Frame) -> Result<(), String> {
        if self.is_silent.load(Ordering::Relaxed) {
            self.is_silent.store(false, Ordering::Relaxed);
        }
        if frame.head.correlation_id == CorrelationId(0) {
            let said = frame.decode_body::<Outcome<()>>().ok().and_then(|outcome| outcome.error);
            return Err(said.map_or_else(|| "it was refused without a reason".to_owned(), |error| error.message));
        }
        // A reply that nobody waits for any more is dropped.
        if let Some(waiting) = lock(&self.pending).replies.remove(&frame.head.correlation_id) {
            let _ = waiting.reply.send(Ok(frame));
        }
        Ok(())
    }
}

async fn run_reader(link: Arc<Link>, read: OwnedReadHalf, max_frame_bytes: usize) {
    let mut frames = FrameReader::new(read, FrameCodec::for_replies(max_frame_bytes));
    let reading = async {
        loop {
            match frames.next().await {
                Ok(None) => return "the broker closed it".to_owned(),
                Err(error) => return error.to_string(),
                Ok(Some(frame)) => {
                    if let Err(cause) = link.on_frame(frame) {
                        return cause;
                    }
                }
            }
        }
    };
    let cause = tokio::select! {
        cause = reading => cause,
        () = link.closed.cancelled() => return,
    };
    link.fail(&cause);
}

async fn run_writer(link: Arc<Link>, mut write: OwnedWriteHalf, mut queue: mpsc::Receiver<Outgoing>) {
    let writing = async {
        let (mut taken, mut written) = (Vec::with_capacity(FRAMES_A_WRITE), Vec::new());
        let mut bytes = SegmentedBuf::new();
        while queue.recv_many(&mut taken, FRAMES_A_WRITE).await > 0 {
            for outgoing in taken.drain(..) {
                if let Err(error) = bytes.put_frame(outgoing.frame) {
                    return error.to_string();
                }
                written.extend(outgoing.written);
            }
            while bytes.has_remaining() {
                if let Err(error) = write.write_buf(&mut bytes).await {
                    return error.to_string();
                }
            }
            bytes.release_memory();
            for (sender, _permit) in written.drain(..) {
                let _ = sender.send(());
            }
        }
        "it was closed by this client".to_owned()
    };
    let cause = tokio::select! {
        cause = writing => cause,
        () = link.closed.cancelled() => return,
    };
    link.fail(&cause);
}
