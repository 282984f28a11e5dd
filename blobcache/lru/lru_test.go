package lru

import "testing"

func TestNew(t *testing.T) {
	c := New[int, string](2)
	c.Add(1, "a")
	c.Add(2, "b")
	c.Get(1)
	c.Add(3, "c")
	if _, there := c.Get(2); there || c.Len() != 2 {
		t.Errorf("%d entries, the one that was not used for longest among them: %v", c.Len(), there)
	}
	defer func() {
		if recover() == nil {
			t.Error("a cache of nothing")
		}
	}()
	New[int, string](0)
}
