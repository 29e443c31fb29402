"""Joins the rooms into the verbs that protocols, web and cli call: one small facade a room."""
