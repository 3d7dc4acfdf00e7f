package auth

import "testing"

func TestMayCall(t *testing.T) {
	for _, c := range []struct {
		patterns []string
		function string
		want     bool
	}{
		{nil, "anything", true},
		{[]string{}, "anything", false},
		{[]string{"resize"}, "resize", true},
		{[]string{"resize"}, "resize2", false},
		{[]string{"resize"}, "Resize", false},
		{[]string{"img.*"}, "img.resize", true},
		{[]string{"img.*"}, "img.", true},
		{[]string{"img.*"}, "ximg.resize", false},
		{[]string{"*.resize"}, "img.resize", true},
		{[]string{"*.resize"}, "img.resize.x", false},
		{[]string{"a*b*c"}, "a-b-b-c", true},
		{[]string{"a*b*c"}, "a-c-b", false},
		{[]string{"ab*ba"}, "aba", false}, // the two ends may not share a byte
		{[]string{"*"}, "", true},
		{[]string{"a?[b]"}, "a?[b]", true},
		{[]string{"a?[b]"}, "axb", false},
		{[]string{"no", "caf\xc3\xa9*"}, "caf\xc3\xa9-1", true},
		{[]string{"caf\xc3\xa9*"}, "cafe\xcc\x81-1", false}, // bytes, not what they look like
	} {
		if got := (&Identity{Functions: c.patterns}).MayCall(c.function); got != c.want {
			t.Errorf("MayCall(%q) with %q = %v", c.function, c.patterns, got)
		}
	}
}

func TestScopes(t *testing.T) {
	for _, name := range scopeNames {
		s, err := ParseScope(name)
		if err != nil || s.String() != name {
			t.Errorf("ParseScope(%q) = %v, %v", name, s, err)
		}
	}
	if _, err := ParseScope("Admin"); err == nil {
		t.Error("a scope in another case was taken")
	}
	if (Submit | Read).Has(Cancel) || !(Submit | Read).Has(Read) || !Admin.Has(Submit|Cancel) {
		t.Error("Has is wrong")
	}
}
