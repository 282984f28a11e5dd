package demo

import (
	"errors"

	"shoal/proxy/origin/origintest"
)

// origin is one registry behind one uplink, with a listener for each node and
// one for the direct pull: whom a byte went to is read off the port that it
// was asked at.
type origin struct {
	registry *origintest.Registry
	servers  []*origintest.Server
}

// startOrigin makes the image and serves it to the given number of nodes.
func startOrigin(nodes int) (*origin, *origintest.Added, error) {
	o := &origin{registry: origintest.New(origintest.Options{UplinkBitsPerSecond: uplinkBits})}
	image := o.registry.AddImage(repository, tag, origintest.Image{
		Seed:      imageSeed,
		Platforms: []string{"linux/amd64", "linux/arm64"},
		Layers:    origintest.Layers(layerSizes()...),
	})
	for range nodes + 1 {
		s, err := origintest.Listen("127.0.0.1:0", o.registry)
		if err != nil {
			return nil, nil, errors.Join(err, o.close())
		}
		o.servers = append(o.servers, s)
	}
	return o, image, nil
}

// url is the registry as listener i offers it.
func (o *origin) url(i int) string { return o.servers[i].URL }

// sent returns the body bytes that left through listener i, by the origin's
// log.
func (o *origin) sent(i int) int64 { return o.sentAll()[i] }

// sentAll returns the body bytes that left through each listener.
func (o *origin) sentAll() []int64 {
	byHost := map[string]int64{}
	for _, q := range o.registry.Requests() {
		byHost[q.Host] += q.Body
	}
	sent := make([]int64, len(o.servers))
	for i, s := range o.servers {
		sent[i] = byHost[s.Host()]
	}
	return sent
}

func (o *origin) close() error {
	var errs []error
	for _, s := range o.servers {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}
