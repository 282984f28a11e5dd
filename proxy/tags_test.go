package proxy

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"shoal/blobcache"
	"shoal/blobcache/blob"
)

// openTags returns tags over a store of their own.
func openTags(t *testing.T) *tags {
	t.Helper()
	store, err := blobcache.Open(t.TempDir(), blobcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return newTags(store)
}

func TestTagsShareOneQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := openTags(t)
		asked := 0
		ask := func(context.Context) (blob.Descriptor, error) {
			asked++
			sleep(300 * time.Millisecond)
			return blob.Descriptor{Size: int64(asked)}, nil
		}
		var clients sync.WaitGroup
		for range 25 {
			clients.Go(func() {
				if d, err := tags.resolve(t.Context(), tagKey{tag: "a"}, 0, ask); err != nil || d.Size != 1 {
					t.Errorf("%+v, %v", d, err)
				}
			})
		}
		clients.Wait()
		sleep(tagValidity - time.Millisecond)
		if d, err := tags.resolve(t.Context(), tagKey{tag: "a"}, 0, ask); err != nil || d.Size != 1 {
			t.Errorf("within the second: %+v, %v", d, err)
		}
		sleep(time.Millisecond)
		if d, err := tags.resolve(t.Context(), tagKey{tag: "a"}, 0, ask); err != nil || d.Size != 2 {
			t.Errorf("after the second: %+v, %v", d, err)
		}
		if d, err := tags.resolve(t.Context(), tagKey{tag: "b"}, 0, ask); err != nil || d.Size != 3 {
			t.Errorf("another tag: %+v, %v", d, err)
		}
	})
}

func TestTagsShareFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := openTags(t)
		asked := 0
		ask := func(context.Context) (blob.Descriptor, error) {
			asked++
			return blob.Descriptor{}, blob.ErrUnavailable
		}
		for range 3 {
			if _, err := tags.resolve(t.Context(), tagKey{tag: "a"}, 0, ask); !errors.Is(err, blob.ErrUnavailable) {
				t.Error(err)
			}
		}
		if asked != 1 {
			t.Errorf("a failing upstream was asked %d times in a second", asked)
		}
	})
}

func TestTagsClientLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := openTags(t)
		ask := func(ctx context.Context) (blob.Descriptor, error) {
			select {
			case <-time.After(5 * time.Second):
				return blob.Descriptor{Size: 7}, nil
			case <-ctx.Done():
				return blob.Descriptor{}, ctx.Err()
			}
		}
		first, leave := context.WithCancel(t.Context())
		go func() {
			sleep(time.Second)
			leave()
		}()
		var second sync.WaitGroup
		second.Go(func() {
			sleep(500 * time.Millisecond)
			if d, err := tags.resolve(t.Context(), tagKey{tag: "a"}, 0, ask); err != nil || d.Size != 7 {
				t.Errorf("who stayed got %+v, %v", d, err)
			}
		})
		start := time.Now()
		if _, err := tags.resolve(first, tagKey{tag: "a"}, 0, ask); !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("who left was held for %v: %v", time.Since(start), err)
		}
		second.Wait()
	})
}

func TestTagsQuestionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tags := openTags(t)
		start := time.Now()
		_, err := tags.resolve(t.Context(), tagKey{tag: "a"}, 0, func(ctx context.Context) (blob.Descriptor, error) {
			<-ctx.Done()
			return blob.Descriptor{}, ctx.Err()
		})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != askPatience {
			t.Errorf("a silent upstream held the client for %v: %v", time.Since(start), err)
		}
	})
}
