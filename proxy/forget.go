package proxy

import (
	"fmt"

	"shoal/proxy/request"
)

// Forget drops what the node knows of an image, and returns how many things it
// were. Of a tag, or all tags of a repository, that is what the registry said
// they are, so that the next client has it asked again; the content stays, as a
// digest never means anything else. Of a digest it is the content that has it,
// not what that refers to, and what tags of the repository are that are it.
func (p *Proxy) Forget(i request.Image) (int, error) {
	prefix := i.Registry + "/" + i.Name + ":"
	if i.Tag != "" {
		prefix = below(prefix + i.Tag)
	}
	p.leases.forget(prefix, i.Digest)
	n, err := p.tags.forget(prefix, i.Digest)
	if err != nil {
		return n, fmt.Errorf("forget %s: %w", i, err)
	}
	if i.Digest != "" && p.cache.Drop(i.Digest) {
		n++
	}
	return n, nil
}
