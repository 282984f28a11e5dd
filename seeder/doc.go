// Package seeder has the node fetch images before anybody asks for them: what a
// person names (Pull), and what selections name at their times (Seeder.Run). It
// decides what to fetch and when. How is the business of the Mirror, which does
// it as for a client: from members first, from the registry what nobody has.
//
// What always holds: what is selected is a function of the rules and of what
// registries list (Selection.Choose), and when is one of the schedule and the
// clock (Selection.Next); what a registry's notification says is fetched only if a
// selection covers it; an image counts as there when all of it is in the cache and
// proven. Nothing here makes bytes up or down: that is the cache's.
//
// Goroutines: Run owns those of selections. A Pull runs in that of its caller.
package seeder
