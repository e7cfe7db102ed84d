//! Images: looked for first, pulled once for everybody who asks meanwhile.
//!
//! A pull goes on when nobody waits any more: whoever got `Pulling` asks again and is told how it
//! ended. The end of a pull is kept for exactly those, and not for long.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use taskwright_capability::ContainerError;
use taskwright_capability::container::{ImageState, PullPolicy, PullProgress};
use taskwright_model::Timestamp;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::fault;
use crate::host::Inner;
use crate::messages::{ImageSpec, ImageStatusRequest, PullImageRequest};

/// Pulls at a time; the rest queue up.
const MOST_PULLS: usize = 4;
/// Images that are being pulled or waited for.
const MOST_IMAGES: usize = 256;
/// How long the end of a pull is kept for those who were told that it goes on.
const KEPT: Duration = Duration::from_secs(60);

type Pulled = Result<(), ContainerError>;

/// Every pull.
pub(crate) struct Pulls {
    images: Mutex<HashMap<String, Arc<Pull>>>,
    room: Arc<Semaphore>,
}

struct Pull {
    since: Timestamp,
    outcome: watch::Sender<Option<(Pulled, Instant)>>,
    count: Mutex<Count>,
}

#[derive(Default)]
struct Count {
    /// Who waits now.
    waiting: u32,
    /// Who was told that it goes on, and may ask again.
    owed: u32,
}

/// Counts somebody who waits, until dropped.
struct Waiting<'a>(&'a Pull);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count.lock().waiting -= 1;
    }
}

impl Pulls {
    pub(crate) fn new() -> Self {
        Self {
            images: Mutex::default(),
            room: Arc::new(Semaphore::new(MOST_PULLS)),
        }
    }
}

impl Inner {
    /// See `ContainerHost::image`.
    pub(crate) async fn image(
        self: Arc<Self>,
        image: String,
        policy: PullPolicy,
        wait: Duration,
    ) -> Result<ImageState, ContainerError> {
        if image.is_empty() {
            let detail = "no image is named".to_owned();
            return Err(ContainerError::Refused { detail });
        }
        match policy {
            PullPolicy::Never => {
                return self.present(&image).await?.ok_or_else(|| {
                    let detail = "it is not on this machine, and its pull policy is never".into();
                    ContainerError::ImageUnavailable { image, detail }
                });
            }
            PullPolicy::IfNotPresent => {
                if let Some(present) = self.present(&image).await? {
                    self.tell_by_presence(&image);
                    return Ok(present);
                }
            }
            PullPolicy::Always => {}
        }
        let pull = self.pull(&image)?;
        let Some(outcome) = wait_for(&pull, wait).await else {
            let mut count = pull.count.lock();
            count.owed += 1;
            let waiters = count.waiting + count.owed;
            let took = (self.clock)().since(pull.since);
            let seconds = took.as_secs();
            return Ok(ImageState::Pulling(PullProgress { seconds, waiters }));
        };
        self.forget_if_told(&image, &pull);
        outcome?;
        self.present(&image).await?.ok_or_else(|| {
            let detail = "it was pulled, and is gone again".to_owned();
            ContainerError::ImageUnavailable { image, detail }
        })
    }

    async fn present(&self, image: &str) -> Result<Option<ImageState>, ContainerError> {
        let request = ImageStatusRequest {
            image: Some(spec(image)),
        };
        let answer = match self.runtime.look(request).await {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other.map_err(fault::general)?,
        };
        Ok(answer.image.map(|found| ImageState::Present {
            id: found.id,
            size: found.size,
        }))
    }

    /// The pull of an image that goes on, or has ended for those who waited; else a new one.
    fn pull(self: &Arc<Self>, image: &str) -> Result<Arc<Pull>, ContainerError> {
        let mut images = self.pulls.images.lock();
        images.retain(|_, pull| {
            let outcome = pull.outcome.borrow();
            outcome.as_ref().is_none_or(|(_, at)| at.elapsed() < KEPT)
        });
        if let Some(pull) = images.get(image) {
            let mut count = pull.count.lock();
            let ended = pull.outcome.borrow().is_some();
            if !ended || count.owed > 0 {
                count.owed = count.owed.saturating_sub(1);
                drop(count);
                return Ok(pull.clone());
            }
        }
        if images.len() >= MOST_IMAGES {
            let detail = format!("{MOST_IMAGES} images are being pulled already");
            return Err(ContainerError::Unavailable { detail });
        }
        let pull = Arc::new(Pull {
            since: (self.clock)(),
            outcome: watch::channel(None).0,
            count: Mutex::default(),
        });
        images.insert(image.to_owned(), pull.clone());
        drop(images);
        let (inner, image, working) = (self.clone(), image.to_owned(), pull.clone());
        self.spawn(async move {
            let Ok(_room) = inner.pulls.room.clone().acquire_owned().await else {
                return;
            };
            tracing::info!(image, "pulling an image");
            let request = PullImageRequest {
                image: Some(spec(&image)),
            };
            let pulled = inner.runtime.call(request).await;
            if let Err(error) = &pulled {
                tracing::warn!(image, error = error.words(), "an image could not be pulled");
            }
            let outcome = pulled
                .map(|_| ())
                .map_err(|error| fault::pulling(error, &image));
            working
                .outcome
                .send_replace(Some((outcome, Instant::now())));
            inner.forget_if_told(&image, &working);
        });
        Ok(pull)
    }

    /// Somebody who may have been told that a pull goes on finds the image there, and asks for
    /// the pull's end no more. Left counted, it would keep the end for those who want a new pull.
    fn tell_by_presence(&self, image: &str) {
        let pull = self.pulls.images.lock().get(image).cloned();
        if let Some(pull) = pull {
            // Also before the pull has ended: the image is there a moment earlier.
            let mut count = pull.count.lock();
            count.owed = count.owed.saturating_sub(1);
            drop(count);
            self.forget_if_told(image, &pull);
        }
    }

    /// An ended pull that nobody waits for any more is forgotten.
    fn forget_if_told(&self, image: &str, pull: &Arc<Pull>) {
        let mut images = self.pulls.images.lock();
        let count = pull.count.lock();
        let told = count.owed == 0 && count.waiting == 0 && pull.outcome.borrow().is_some();
        if told
            && images
                .get(image)
                .is_some_and(|known| Arc::ptr_eq(known, pull))
        {
            images.remove(image);
        }
    }
}

async fn wait_for(pull: &Pull, wait: Duration) -> Option<Pulled> {
    pull.count.lock().waiting += 1;
    let _waiting = Waiting(pull);
    let mut outcome = pull.outcome.subscribe();
    let ended = outcome.wait_for(Option::is_some);
    let ended = tokio::time::timeout(wait, ended).await.ok()?.ok()?;
    ended.as_ref().map(|(pulled, _)| pulled.clone())
}

fn spec(image: &str) -> ImageSpec {
    ImageSpec {
        image: image.to_owned(),
    }
}
