//! hyper as the second opinion on a request's head: no runtime, one connection in memory, polled to its end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use hyper::body::{Body, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};
use rosemary::http::Method;
use rosemary::http::parse::Head;

/// What hyper saw: method, target and the exact length of the body.
type Seen = (String, String, Option<u64>);

/// The bytes of a request; what is written is dropped.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, mut buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let taken = self.0.len().min(buffer.remaining());
        buffer.put_slice(&self.0[..taken]);
        self.0 = &self.0[taken..];
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn seen(bytes: &[u8]) -> Option<Seen> {
    let seen = Rc::new(RefCell::new(None));
    let note = Rc::clone(&seen);
    let service = service_fn(move |request: Request<Incoming>| -> Ready<Result<Response<String>, Infallible>> {
        let found = (request.method().to_string(), request.uri().to_string(), request.body().size_hint().exact());
        note.borrow_mut().get_or_insert(found);
        ready(Ok(Response::new(String::new())))
    });
    let connection = hyper::server::conn::http1::Builder::new().keep_alive(false).serve_connection(Wire(bytes), service);
    let mut connection = pin!(connection);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..64 {
        if connection.as_mut().poll(&mut context).is_ready() {
            break;
        }
    }
    seen.take()
}

/// Panics unless hyper reads the head as we did.
pub fn agree(bytes: &[u8], ours: &Head) {
    // A length beyond every limit is refused by its size (413); hyper may not even hold the number.
    if ours.body_bytes > u64::from(u32::MAX) {
        return;
    }
    let Some((method, target, length)) = seen(bytes) else { panic!("hyper refuses a head that we accept") };
    // A method that no route knows is kept as one word.
    assert!(method == ours.method.name() || ours.method == Method::Other, "method");
    assert_eq!(length, Some(ours.body_bytes), "body length");
    assert!(target.ends_with(ours.path.as_str()) || ours.query.is_some() && target.contains(ours.path.as_str()), "target");
}
