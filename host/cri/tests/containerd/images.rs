//! Images: there, pulled, not to be had.

use std::path::Path;
use std::time::Duration;

use taskwright_capability::container::{ImageState, PullPolicy};
use taskwright_capability::{ContainerError, ContainerHost as _};

use super::registry::Registry;
use super::scene::{further, with_runtime};

#[test]
fn an_image_that_is_nowhere_is_unavailable() {
    with_runtime(|scene| async move {
        let wait = Duration::from_secs(30);
        let name = "localhost/no-such/image:1".to_owned();
        for policy in [
            PullPolicy::Never,
            PullPolicy::IfNotPresent,
            PullPolicy::Always,
        ] {
            let answer = scene.host.image(name.clone(), policy, wait).await;
            println!("{policy:?}: {answer:?}");
            assert!(
                matches!(answer, Err(ContainerError::ImageUnavailable { image, .. }) if image == name)
            );
        }
        let present = scene
            .host
            .image(scene.image.clone(), PullPolicy::Never, wait)
            .await;
        assert!(matches!(present, Ok(ImageState::Present { size, .. }) if size > 0));
    });
}

#[test]
fn one_pull_serves_everybody_who_waits() {
    with_runtime(|scene| async move {
        let Some(hosts) = further("TASKWRIGHT_TEST_CRI_REGISTRY") else {
            return;
        };
        let registry = Registry::start(Duration::from_millis(700)).await;
        registry.lead_all_here(Path::new(&hosts));
        let name = format!("registry.test/{}:1", registry.name());
        let short = Duration::from_millis(100);
        let first = scene
            .host
            .image(name.clone(), PullPolicy::IfNotPresent, short)
            .await;
        assert!(matches!(first, Ok(ImageState::Pulling(_))), "{first:?}");
        let long = Duration::from_secs(60);
        let waiters = (0..20).map(|_| {
            scene
                .host
                .image(name.clone(), PullPolicy::IfNotPresent, long)
        });
        for answer in futures::future::join_all(waiters).await {
            assert!(
                matches!(answer, Ok(ImageState::Present { .. })),
                "{answer:?}"
            );
        }
        println!("manifests asked for: {}", registry.manifests_by_tag());
        let by_one_pull = registry.manifests_by_tag();
        assert!(by_one_pull <= 2, "{by_one_pull}");
        let again = scene
            .host
            .image(name.clone(), PullPolicy::IfNotPresent, long)
            .await;
        assert!(matches!(again, Ok(ImageState::Present { .. })));
        assert_eq!(registry.manifests_by_tag(), by_one_pull);
        let always = scene.host.image(name, PullPolicy::Always, long).await;
        assert!(matches!(always, Ok(ImageState::Present { .. })));
        assert!(registry.manifests_by_tag() > by_one_pull);

        let missing = format!("registry.test/{}:no-such-tag", registry.name());
        for _ in 0..2 {
            let before = registry.requests();
            let answer = scene
                .host
                .image(missing.clone(), PullPolicy::IfNotPresent, long)
                .await;
            assert!(matches!(
                answer,
                Err(ContainerError::ImageUnavailable { .. })
            ));
            assert!(registry.requests() > before, "a failure is not kept");
        }
    });
}
