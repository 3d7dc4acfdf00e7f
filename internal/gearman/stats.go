package gearman

import "maps"

// ServerStats is what is known of one job server without asking it.
type ServerStats struct {
	Server      string // host:port, as configured
	Connected   bool
	Connections uint64 // that the client has had
	Pending     int    // requests that wait for their reply
	Functions   []FunctionStatus
}

// Stats returns how each server looks from here, in the order of the configuration, with its functions as it said a second ago or so;
// none while it does not answer. It does not block and asks no server.
func (c *Cluster) Stats() []ServerStats {
	list := make([]ServerStats, len(c.members))
	for i, m := range c.members {
		info := m.Info()
		s := ServerStats{Server: info.Server, Connected: info.Connected, Connections: m.connections(), Pending: info.Pending}
		if table := m.functions.Load(); table != nil {
			s.Functions = make([]FunctionStatus, 0, len(*table))
			for f := range maps.Values(*table) {
				s.Functions = append(s.Functions, f)
			}
		}
		list[i] = s
	}
	return list
}

// connections returns how many connections the client has had.
func (c *Client) connections() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.generation
}
