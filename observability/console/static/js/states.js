// What a group can be in, in words.

export const STATES = { home: "Home", isolated: "Isolated", forced: "Moved by hand", pinned: "Kept home by hand", returning: "Coming home", limited: "Limited" };
