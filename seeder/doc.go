// Package seeder has the node fetch images before anybody asks for them: what a
// person names (Pull), and what selections name at their times (Seeder.Run). It
// decides what to fetch and when. How is the business of the Mirror, which does
// it as for a client: from members first, from the registry what nobody has.
//
// It also sees to it that enough members, in enough zones, hold what a selection
// has (guard.go): it asks the Swarm who does, and has others fetch the rest. Who is
// to hold an image is a function of the image, the members and who holds it (rank,
// need.choose), so that seeders of the same selection order the same members
// without knowing of each other.
//
// What always holds: what is selected is a function of the rules and of what
// registries list (Selection.Choose), and when is one of the schedule and the
// clock (Selection.Next); a list that cannot be had takes nothing away, also after a
// restart (choices); what a registry's notification says is fetched only if a
// selection covers it; an image counts as there when all of it is in the cache and
// proven. Nothing here makes bytes up or down: that is the cache's.
//
// A check never keeps selections from looking, and does two images at a time; who
// fails is left alone for ever longer (rests).
//
// Goroutines: Run owns those of selections, and of their checks. A Pull runs in that of its caller.
package seeder
